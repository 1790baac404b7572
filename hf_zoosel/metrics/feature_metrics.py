"""Feature metrics: how sparse and how separated are the feature maps before pooling?"""

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, class_sums, mean_row
from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._min_max import min_max

SPARSITY_WEIGHT = 0.574  # of S6 against S5, fitted by the authors over 60 ImageNet-subset models

_ROUNDING = 1e-12  # what equal values may seem to differ by, of their size


def map_statistics(maps: Tensor) -> Tensor:
    """Sparsity of each image's maps: the share of entries that are not zero, and large entries per zero.

    "Large" is within 1 of the image's largest entry. An image without a zero counts as having one.

    Args:
        maps: Feature maps after a ReLU, before pooling, shape ``(n, channels, height, width)``.

    Returns:
        Shape ``(n, 2)`` float32: S5 and S6 of each image.

    Reference:
        Ueno and Kondo, submission to ICLR 2020.

    Example:
        >>> map_statistics(torch.tensor([[[[0.0, 5.0], [4.5, 0.0]]]]))
        tensor([[0.5000, 1.0000]])
    """
    flat = maps.detach().flatten(1)
    zeros = (flat == 0).sum(dim=1)
    high = (flat >= flat.amax(dim=1, keepdim=True) - 1).sum(dim=1)
    return torch.stack([1 - zeros / flat.shape[1], high / zeros.clamp_min(1)], dim=1).float()


def feature_metrics_terms(statistics: Tensor) -> tuple[float, float]:
    """S5 and S6 of one candidate: the means of its images' statistics; smaller is better.

    Args:
        statistics: What ``map_statistics`` gives for the target images, shape ``(n_samples, 2)``.

    Raises:
        ValueError: If the shape is another, or an entry is not finite.
        TypeError: If they are no floats.
    """
    if check_features(statistics, "statistics").shape[1] != 2:
        raise ValueError(
            f"`statistics` must have shape (n_samples, 2), got {tuple(statistics.shape)}. "
            "Make them with `map_statistics`."
        )
    s5, s6 = statistics.double().mean(dim=0).tolist()
    return s5, s6


def feature_metrics_over_zoo(terms: Tensor) -> Tensor:
    """Combined sparsity of each candidate, relative to the zoo: 0.426 S5 + 0.574 S6.

    Both are scaled to [-1, 1] over the candidates and their sign is turned, as the authors do, so that sparse maps
    score high. A term that all candidates share, as in a zoo of one, counts 0. Labels do not enter; networks whose
    activation is no ReLU have no zeros, so that S5 is 1 and says they are the worst.

    Args:
        terms: S5 and S6 of each candidate, shape ``(n_candidates, 2)``.

    Returns:
        Scores in [-1, 1], shape ``(n_candidates,)``, float64; higher is better, within this zoo only.

    Raises:
        ValueError: If ``terms`` has another shape or is not finite.
        TypeError: If ``terms`` are not floats.

    Reference:
        Ueno and Kondo (see ``map_statistics``), C_{5,6} with a = 0.574; used in Deshpande et al., 2021,
        https://arxiv.org/abs/2102.00084

    Example:
        >>> scores = feature_metrics_over_zoo(torch.tensor([[0.2, 0.1], [0.6, 0.3], [0.4, 0.5]]))
        >>> [round(score, 4) for score in scores.tolist()]
        [1.0, -0.426, -0.574]
    """
    scaled = min_max(terms, 2)
    s5, s6 = torch.where(scaled.amax(dim=0) > 0, 1 - 2 * scaled, 0.0).unbind(dim=1)
    return (1 - SPARSITY_WEIGHT) * s5 + SPARSITY_WEIGHT * s6


def between_class_scatter(maps: Tensor, labels: Tensor) -> float:
    """S1: sum over classes of n_k |mean map of the class - mean map|^2; larger is better."""
    return _scatters(maps, labels)[0]


def within_class_scatter(maps: Tensor, labels: Tensor) -> float:
    """S2: sum over samples of |map - mean map of its class|^2; smaller is better."""
    return _scatters(maps, labels)[1]


def scatter_ratio(maps: Tensor, labels: Tensor) -> float:
    """S3: (S1 / (k - 1)) / (S2 / (n - k)); larger is better.

    Raises:
        ValueError: If every sample has a class of its own, or equals its class's mean.
    """
    between, within = _scatters(maps, labels)
    k, n = len(labels.unique()), len(labels)
    if n == k or within <= _ROUNDING**2 * (between + within):
        raise ValueError(f"`labels` must have classes whose samples differ, got {n} samples of {k} classes.")
    return (between / (k - 1)) / (within / (n - k))


def channel_correlation(maps: Tensor) -> float:
    """S4: sum over samples and pairs of channels (i, j) of |corr(map_i, map_j)|; smaller is better.

    A channel that is constant over an image's positions correlates with nothing, itself included.
    """
    total = 0.0
    for image in maps.detach():
        channels = image.flatten(1).double()
        lengths = channels.norm(dim=1, keepdim=True)
        channels = channels - channels.mean(dim=1, keepdim=True)
        norms = channels.norm(dim=1, keepdim=True)
        channels = torch.where(norms > _ROUNDING * lengths, channels / norms, 0.0)
        total += (channels @ channels.T).abs().sum().item()
    return total


def _scatters(maps: Tensor, labels: Tensor) -> tuple[float, float]:
    flat = check_features(maps.flatten(1), "maps")
    y = check_labels(labels, flat)
    counts = y.bincount().double()[:, None]
    centre = mean_row(flat)
    means = class_sums(flat, y, centre) / counts
    within = sum((block - means[y[rows]]).square().sum().item() for rows, block in blocks(flat, centre))
    return (counts * means.square()).sum().item(), within
