"""PARC: are samples of different classes also different to the model?"""

import math

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, gram_of_columns, gram_of_rows, mean_row
from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._pairs import Pairs, pair_products, pair_ranks, pearson_with_influence

_SIGN_TIE = 1e-9  # loadings this close in size, relatively, are equal: the first one decides the sign


def parc(features: Tensor, labels: Tensor, *, n_components: int | None = None) -> float:
    """Pairwise annotation representation comparison: RSA against the labels themselves.

    The Spearman correlation, over all pairs of samples, of 1 - Pearson(f_i, f_j) over the
    standardised feature dimensions with the same of one-hot labels. Equal dissimilarities share
    their mean rank. The label side takes two values, 0 for a pair of one class and C / (C - 1)
    for any other; so do its ranks, and a correlation with two values needs no ranks of them.

    A row without variance over its dimensions has no Pearson correlation; it counts as
    uncorrelated with every other row. A constant feature contributes zeros.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples,
            n_features)``, any float type; correlations are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        n_components: Reduce the features to so many principal components first (fewer where
            there are fewer). None, as in the definition of the score, takes the features as they
            are; 32 is the paper's best. The components' signs are arbitrary and the score depends
            on them: the largest loading of each is made positive, as scikit-learn >= 1.5 does.

    Returns:
        Correlation in [-1, 1]; higher is better. Features without equal pairs cannot reach 1, and
        how near they come depends on the labels: compare models on one sample of one target only.
        0 where no two samples share a class, as all pairs of labels are then equal.

    Raises:
        ValueError: If shapes disagree, features are not finite, fewer than two classes are present,
            ``n_components`` is below 2, or all pairs are equally dissimilar, as they are where all
            rows are equal or there is only one feature or component.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        Bolya et al., "Scalable Diverse Model Selection for Accessible Transfer Learning", NeurIPS
        2021, https://arxiv.org/abs/2111.06977, with the standardisation of its code
        (dbolya/parc, methods.py). Deviations: not multiplied by 100, an exact PCA where the
        code has a randomised one, and without the heuristic that adds the depth of the network.

    Example:
        >>> import torch
        >>> features = torch.tensor([[5.0, 1.0, 0.0], [4.0, 0.0, 1.0], [0.0, 3.0, 4.0], [1.0, 4.0, 4.0]])
        >>> round(parc(features, torch.tensor([3, 3, 7, 7])), 4)
        0.8281
    """
    return parc_influence(features, labels, n_components=n_components)[0]


def parc_influence(features: Tensor, labels: Tensor, *, n_components: int | None = None) -> tuple[float, Tensor]:
    """Return ``parc`` and each sample's influence on it, ``(n,)`` float64, which sums to zero.

    The derivative of the correlation of the ranks over pairs weighted w_i w_j, with the ranks, and so the
    standardisation and the principal components, held.
    """
    if n_components is not None and n_components < 2:
        raise ValueError(f"`n_components` must be at least 2, or None for all features, got {n_components}.")
    x, y = check_features(features), check_labels(labels, features)
    counts = y.bincount()
    n_pairs, n_same = math.comb(len(x), 2), int((counts * (counts - 1)).sum()) // 2
    if n_same == 0:
        return 0.0, torch.zeros(len(x), dtype=torch.float64, device=x.device)

    ranks = _ranks(x, n_components)
    classes, mean = y.cpu().numpy(), 1 - n_same / n_pairs

    def differ(i: int, _: slice) -> Pairs:
        """Return 1 for a pair of two classes, 0 for one of the same, less the mean."""
        return (classes[i + 1 :] != classes[i]) - mean

    score, influence = pearson_with_influence(pair_products(len(x), ranks, differ))
    return score, torch.from_numpy(influence).to(x.device)


def _ranks(x: Tensor, n_components: int | None) -> Pairs:
    centre = mean_row(x)
    if n_components is None:
        variance = torch.zeros_like(centre)
        for _, block in blocks(x, centre):
            variance += block.square().sum(dim=0) / len(x)
        ranks = pair_ranks(x, centre, torch.where(variance > 0, variance.rsqrt(), 0.0))
    else:
        ranks = pair_ranks(_standardised_components(x, centre, n_components))
    if ranks.min() == ranks.max():
        raise ValueError(
            "`features` must make some pairs of samples more alike than others, got equal dissimilarities only, so "
            "the correlation is undefined. Check that the images and the weights are what you expect."
        )
    return ranks


def _standardised_components(x: Tensor, centre: Tensor, n_components: int) -> Tensor:
    """Return the first principal components of ``x``, each of unit variance but for a common factor, shape (n, r)."""
    from scipy.linalg import eigh

    wide = len(x) <= x.shape[1]
    gram = gram_of_rows(x, centre) if wide else gram_of_columns(x, centre)
    last = len(gram) - 1
    values, vectors = eigh(gram.cpu().numpy(), subset_by_index=[max(0, last + 1 - n_components), last])
    significant = values > max(x.shape) * np.finfo(np.float64).eps * values[-1]  # the others are rounding
    basis = torch.from_numpy(vectors[:, significant][:, ::-1].copy()).to(x.device)  # (n or d, r), largest first
    values = torch.from_numpy(values[significant][::-1].copy()).to(x.device)

    loadings = basis if not wide else torch.zeros(x.shape[1], basis.shape[1], dtype=torch.float64, device=x.device)
    scores = basis if wide else torch.zeros(len(x), basis.shape[1], dtype=torch.float64, device=x.device)
    for rows, block in blocks(x, centre):
        if wide:
            loadings += block.T @ basis[rows]
        else:
            scores[rows] = block @ basis / values.sqrt()
    return scores * _signs(loadings)


def _signs(loadings: Tensor) -> Tensor:
    """Return the sign of each column's largest entry, ``(r,)``."""
    size = loadings.abs()
    largest = (size >= (1 - _SIGN_TIE) * size.amax(dim=0)).int().argmax(dim=0)
    return loadings.gather(0, largest[None]).sign().squeeze(0)
