"""1-NN: does the nearest other sample have the same label?"""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hf_zoosel.metrics._blocks import blocks, mean_row, per_row, row_slices
from hf_zoosel.metrics._checks import check_features, check_labels

Distance = Literal["euclidean", "cosine"]

_STRIP_ELEMENTS = 2**21  # distances held at once: 16 MB in float64
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
    centre = mean_row(x) if distance == "euclidean" else None  # |a|^2 + |b|^2 - 2 a.b would lose digits to it
    norms = per_row(x, lambda _, block: _points(block, centre).square().sum(dim=1), centre)
    right, most = torch.zeros_like(norms), norms.max()
    for rows, squared in _distance_strips(x, centre, norms):
        least = squared.amin(dim=1)  # (b,)
        i, j = (squared <= (least + _TIE * (norms[rows] + most))[:, None]).nonzero().unbind(dim=1)  # these and more
        nearest = squared[i, j] <= least[i] + _TIE * (norms[rows][i] + norms[j])
        i, j = i[nearest], j[nearest]
        same = (y[rows][i] == y[j]).double()
        right[rows] = torch.zeros_like(least).index_add_(0, i, same) / i.bincount(minlength=len(least))
    return right.mean().item(), right


def _distance_strips(x: Tensor, centre: Tensor | None, norms: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield ``(rows, squared distances (b, n))``; the distance of a point to itself is infinite."""
    for rows in row_slices(x, at_most=max(1, _STRIP_ELEMENTS // len(x))):
        left = x[rows].double()
        left = _points(left if centre is None else left - centre, centre)
        squared = norms[rows, None] + norms
        for columns, block in blocks(x, centre):
            squared[:, columns].addmm_(left, _points(block, centre).T, alpha=-2)
        squared[torch.arange(len(left)), torch.arange(rows.start, rows.stop)] = torch.inf
        yield rows, squared


def _points(block: Tensor, centre: Tensor | None) -> Tensor:
    """Place rows, already less their centre if there is one, so that Euclidean distances order the neighbours."""
    return normalize(block, dim=1, eps=torch.finfo(torch.float64).tiny) if centre is None else block
