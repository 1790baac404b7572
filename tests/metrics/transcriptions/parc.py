"""PARC of arXiv:2111.06977 as its code (dbolya/parc) describes it, pair by pair, with an exact PCA."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from tests.metrics.transcriptions.rsa import dissimilarities, spearman_as_written


def parc_as_written(features, labels, weights=None, *, n_components=None):
    """Spearman of 1 - Pearson of standardised features with 1 - Pearson of one-hot labels."""
    f, classes = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if n_components is not None:
        f = PCA(n_components=min(n_components, len(f) - 1, f.shape[1]), svd_solver="full").fit_transform(f)
    f = StandardScaler().fit_transform(f)
    one_hot = (classes[:, None] == np.unique(classes)).astype(np.float64)
    return spearman_as_written(dissimilarities(f), dissimilarities(one_hot), weights)
