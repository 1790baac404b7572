"""RSA: are samples that a model sees as different also different to a network trained on the target?"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.metrics._checks import check_features
from hf_zoosel.metrics._pairs import Pairs, pair_products, pair_ranks, pearson_with_influence


@dataclass(frozen=True, eq=False)
class RankedReference:
    """The reference side of ``rsa``, ranked once for all models; made by ``rank_reference``.

    Attributes:
        n_samples: How many samples were compared.
        doubled_ranks: Twice the rank of each pair's dissimilarity, so that the halves of ties are whole numbers,
            shape ``(n (n - 1) / 2,)``, int32 on the CPU: 50 MB for 5,000 samples, 2 MB for 1,000.
    """

    n_samples: int
    doubled_ranks: Tensor


def rank_reference(reference: Tensor) -> RankedReference:
    """Rank the dissimilarities of all pairs of reference features.

    Args:
        reference: Features of the target samples by the reference network, shape ``(n_samples, n_features)``.

    Returns:
        What ``rsa`` accepts in place of ``reference``.

    Raises:
        ValueError: If ``reference`` is not finite, has fewer than 3 rows or 2 columns, or all its pairs are
            equally dissimilar.
        TypeError: If ``reference`` are not floats.

    Example:
        >>> import torch
        >>> reference = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0], [3.0, 2.0, 1.0]])
        >>> rank_reference(reference).doubled_ranks.tolist()
        [2, 6, 4]
    """
    ranks = _checked_ranks(reference, "reference")
    ranks *= 2
    dtype = np.int32 if len(ranks) < 2**30 else np.int64
    return RankedReference(len(reference), torch.from_numpy(ranks.astype(dtype)))


def rsa(features: Tensor, reference: Tensor | RankedReference) -> float:
    """Representation similarity analysis: do two networks order the pairs of samples alike?

    The Spearman correlation, over all pairs of samples, of 1 - Pearson(f_i, f_j) over the feature
    dimensions with the same of the reference features. Equal dissimilarities share their mean rank.

    A row without variance over its dimensions, such as zeros, has no Pearson correlation; it
    counts as uncorrelated with every other row. Features of two columns only correlate by +1 or -1.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples,
            n_features)``, any float type; correlations are in float64.
        reference: Features of the same samples, in the same order, by a small network trained
            on the target (the paper's choice: a ResNet-18) or any other reference; shape
            ``(n_samples, n_reference_features)``. For more than one model pass
            ``rank_reference(reference)``, which spares each the ranks of this side.

    Returns:
        Correlation in [-1, 1]; higher is better.

    Raises:
        ValueError: If shapes disagree, either side is not finite, has fewer than 3 rows or 2
            columns, or all its pairs are equally dissimilar.
        TypeError: If either side are not floats.

    Reference:
        Deshpande et al., "A linearized framework and a new benchmark for model selection for
        fine-tuning", 2021, Eqs. 9-11, https://arxiv.org/abs/2102.00084, after Dwivedi & Roig,
        "Representation Similarity Analysis for Efficient Task Taxonomy & Transfer Learning",
        CVPR 2019, https://arxiv.org/abs/1904.11740. Features are not standardised first, as
        the code of PARC does.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0], [3.0, 2.0, 1.0], [3.0, 2.0, 2.0]])
        >>> reference = torch.tensor([[0.0, 1.0, 5.0], [0.0, 2.0, 4.0], [6.0, 5.0, 0.0], [1.0, 0.0, 0.0]])
        >>> round(rsa(features, rank_reference(reference)), 4)
        0.9429
    """
    return rsa_influence(features, reference)[0]


def rsa_influence(features: Tensor, reference: Tensor | RankedReference) -> tuple[float, Tensor]:
    """Return ``rsa`` and each sample's influence on it, ``(n,)`` float64, which sums to zero.

    The derivative of the correlation of the ranks over pairs weighted w_i w_j, with the ranks held.
    """
    ranked = reference if isinstance(reference, RankedReference) else rank_reference(reference)
    if len(features) != ranked.n_samples:
        raise ValueError(
            f"`reference` must have one row per row of `features`, {len(features)}, got {ranked.n_samples}. "
            "Take both from the same samples in the same order."
        )
    ranks, other = _checked_ranks(features, "features"), ranked.doubled_ranks.numpy()
    sums = pair_products(len(features), ranks, lambda _, pairs: other[pairs] - float(len(other) + 1))
    score, influence = pearson_with_influence(sums)
    return score, torch.from_numpy(influence).to(features.device)


def _checked_ranks(features: Tensor, name: str) -> Pairs:
    x = check_features(features, name)
    if len(x) < 3 or x.shape[1] < 2:
        raise ValueError(
            f"`{name}` must have at least 3 rows and 2 columns, got shape {tuple(x.shape)}: "
            "otherwise there are no pairs to order, or no correlation over columns. Use more samples or features."
        )
    ranks = pair_ranks(x)
    if ranks.min() == ranks.max():
        raise ValueError(
            f"`{name}` must make some pairs of samples more alike than others, got equal dissimilarities only, so "
            "the correlation is undefined. Check that the images and the weights are what you expect."
        )
    return ranks
