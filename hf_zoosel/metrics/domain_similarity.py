"""Domain similarity: how far are the target's classes from the classes that a model was trained on?"""

import math

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import class_sums, per_row
from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._transport import exact_plan, squared_distances


def domain_similarity(
    features: Tensor,
    labels: Tensor,
    source_means: Tensor,
    source_counts: Tensor,
    *,
    gamma: float = 0.01,
    least: int = 5,
    least_source: int = 200,
) -> float:
    """Exponential of minus the earth mover's distance between the class means of target and source.

    Classes are points at the mean feature of their samples, weighted by their number of samples; the ground
    distance is Euclidean, so the score depends on the scale of the features.

    Args:
        features: Features of the target samples, shape ``(n_samples, n_features)``, any float
            type; sums are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        source_means: Mean feature of each source class, from the same model, shape
            ``(n_source_classes, n_features)``.
        source_counts: Number of samples of each source class, shape ``(n_source_classes,)``, positive.
        gamma: Scale of the distance in the exponent, positive.
        least: Target classes of fewer samples are left out; where all are, all are kept.
        least_source: Source classes of fewer samples are left out; where all are, all are kept.

    Returns:
        Similarity in (0, 1]; higher is better. It rounds to 0 for distances above 745 / gamma.

    Raises:
        ValueError: If shapes disagree, features or means are not finite, counts are not positive, fewer
            than two target classes are present, or ``gamma`` is not positive.
        TypeError: If features or means are not floats or ``labels`` not integers.
        RuntimeError: If the transport problem is not solved to its marginals.

    Reference:
        Cui et al., "Large Scale Fine-Grained Categorization and Domain-Specific Transfer
        Learning", CVPR 2018, https://arxiv.org/abs/1806.06193; the limit of 200 is of the authors'
        code, that of 5 of Deshpande et al., https://arxiv.org/abs/2102.00084. Keeping all classes where none
        reaches the limit is ours.

    Example:
        >>> import torch
        >>> features, labels = torch.tensor([[0.0], [2.0], [8.0], [8.0]]), torch.tensor([0, 0, 1, 1])
        >>> round(domain_similarity(features, labels, torch.tensor([[1.0], [28.0]]), torch.tensor([300, 300])), 4)
        0.9048
    """
    return domain_similarity_influence(
        features, labels, source_means, source_counts, gamma=gamma, least=least, least_source=least_source
    )[0]


def domain_similarity_influence(
    features: Tensor,
    labels: Tensor,
    source_means: Tensor,
    source_counts: Tensor,
    *,
    gamma: float = 0.01,
    least: int = 5,
    least_source: int = 200,
) -> tuple[float, Tensor]:
    """Return ``domain_similarity`` and each sample's influence on it, ``(n,)`` float64, which sums to zero.

    A sample moves the mean t of its class: the derivative of the distance in t at the best plan, which is the
    best for all means near it, times (f_i - t) / n_c. Samples of classes left out have none.
    """
    x, y = check_features(features), check_labels(labels, features)
    means, mass = _check_source(x, source_means, source_counts)
    if not gamma > 0:
        raise ValueError(f"`gamma` must be positive, got {gamma}. It scales the distance in the exponent.")
    kept, kept_source = _large(y.bincount(), least), _large(mass, least_source)
    counts, mass, source = y.bincount().double(), mass[kept_source], means[kept_source]
    target = class_sums(x, y, source[0]) / counts[:, None] + source[0]  # (k, d)  sums relative to a point near them

    distance = squared_distances(source, target[kept]).sqrt()
    a, b = mass / mass.sum(), counts[kept] / counts[kept].sum()
    plan = torch.from_numpy(exact_plan(distance.cpu().numpy(), a.cpu().numpy(), b.cpu().numpy())).to(x.device)
    similarity = math.exp(-gamma * (plan * distance).sum().item())

    flow = torch.where(distance > 0, plan / distance, 0)  # where a mean meets its partner, the subgradient 0
    pull = torch.zeros_like(target)  # (k, d)  d distance / d target
    pull[kept] = flow.sum(dim=0)[:, None] * target[kept] - flow.T @ source
    pull /= counts[:, None]
    along = (pull * target).sum(dim=1)
    moved = per_row(x, lambda rows, block: (block * pull[y[rows]]).sum(dim=1) - along[y[rows]])
    return similarity, -gamma * similarity * len(x) * moved


def _check_source(x: Tensor, source_means: Tensor, source_counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means (k_s, d) and counts (k_s,) in float64, on the device of ``x``."""
    means = check_features(source_means, "source_means").to(x.device, torch.float64)
    if len(means) == 0 or means.shape[1] != x.shape[1]:
        raise ValueError(
            f"`source_means` must have at least 1 row and {x.shape[1]} columns as `features` have, "
            f"got shape {tuple(means.shape)}. Take both from one model and layer."
        )
    if source_counts.shape != (len(means),) or not (source_counts > 0).all():
        raise ValueError(
            f"`source_counts` must be {len(means)} positive numbers, one per row of `source_means`, got shape "
            f"{tuple(source_counts.shape)} and a least value of {min(source_counts.flatten().tolist(), default=None)}."
        )
    return means, source_counts.to(x.device, torch.float64)


def _large(counts: Tensor, least: int) -> Tensor:
    """Return which classes have ``least`` samples, or all where none has."""
    large = counts >= least
    return large if large.any() else torch.ones_like(large)
