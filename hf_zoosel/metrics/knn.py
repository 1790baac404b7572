"""1-NN: does the nearest other sample have the same label?"""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hf_zoosel.metrics._blocks import blocks, mean_row, per_row, row_slices
from hf_zoosel.metrics._checks import check_features, check_labels

Distance = Literal["euclidean", "cosine"]

_STRIP_ELEMENTS = 2**22  # distances held at once: 32 MB in float64
_TIE = 1e-13  # of |a|^2 + |b|^2: above the rounding of |a|^2 + |b|^2 - 2 a.b, below the steps of float32 features


def knn(features: Tensor, labels: Tensor, *, distance: Distance = "euclidean") -> float:
    """Leave-one-out accuracy of the nearest-neighbour classifier.

    Neighbours at equal distance (duplicates, above all) share the vote: a sample scores the
    fraction of its nearest neighbours that have its label, so the order of samples never matters.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples,
            n_features)``, any float type; distances are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.
        distance: ``"euclidean"``, or ``"cosine"`` for the angle between un-centred rows.
            A row of zeros has no angle: it is nearest to other rows of zeros.

    Returns:
        Accuracy in [0, 1]; higher is better. The only sample of a class scores 0.

    Raises:
        ValueError: If shapes disagree, features are not finite, fewer than two classes
            are present, or ``distance`` is unknown.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        Cover & Hart, "Nearest neighbor pattern classification", 1967,
        https://doi.org/10.1109/TIT.1967.1053964; as a transferability score in Bolya et al.,
        "Scalable Diverse Model Selection for Accessible Transfer Learning", NeurIPS 2021,
        https://arxiv.org/abs/2111.06977. Sharing ties is ours.

    Example:
        >>> import torch
        >>> features = torch.tensor([[0.0], [1.0], [2.5], [9.0], [9.5]])
        >>> knn(features, torch.tensor([0, 0, 1, 1, 1]))
        0.8
    """
    return knn_influence(features, labels, distance=distance)[0]


def knn_influence(features: Tensor, labels: Tensor, *, distance: Distance = "euclidean") -> tuple[float, Tensor]:
    """Return ``knn`` and the correctness of each sample, ``(n,)`` float64.

    Re-weighting it resamples the samples that are judged and holds their neighbours. Resampling
    both, as a naive bootstrap does, would make each repeated sample its own neighbour: always right.
    """
    if distance not in get_args(Distance):
        raise ValueError(f"`distance` must be one of {list(get_args(Distance))}, got {distance!r}.")
    x, y = check_features(features), check_labels(labels, features)
    right = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for rows, squared, slack in _distance_strips(x, distance):
        nearest = squared <= squared.amin(dim=1, keepdim=True) + slack  # (b, n)
        same = nearest & (y[rows, None] == y)
        right[rows] = same.sum(dim=1).double() / nearest.sum(dim=1)
    return right.mean().item(), right


def _distance_strips(x: Tensor, distance: Distance) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield ``(rows, squared distances (b, n), rounding slack (b, n))``; the distance to itself is infinite."""
    centre = mean_row(x)

    def points(block: Tensor) -> Tensor:
        """Place rows so that Euclidean distances order the neighbours."""
        if distance == "euclidean":
            return block - centre  # |a|^2 + |b|^2 - 2 a.b would lose digits to a common mean
        return normalize(block, dim=1, eps=torch.finfo(torch.float64).tiny)

    norms = per_row(x, lambda _, block: points(block).square().sum(dim=1))
    for rows in row_slices(x, at_most=max(1, _STRIP_ELEMENTS // len(x))):
        left, magnitude = points(x[rows].double()), norms[rows, None] + norms
        squared = magnitude.clone()
        for columns, block in blocks(x):
            squared[:, columns] -= 2 * left @ points(block).T
        squared[torch.arange(len(left)), torch.arange(rows.start, rows.stop)] = torch.inf
        yield rows, squared, _TIE * magnitude
