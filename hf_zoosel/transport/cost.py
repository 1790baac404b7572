"""What it costs to carry a source row onto a target column: distances of features as matrix products."""

import torch
from torch import Tensor

from hf_zoosel.transport._checks import check_features, check_matrix

_PIECE_ELEMENTS = 2**20  # 8 MB in float64: of so many at a time is the copy made
_LEAST_LENGTH = 1e-140  # below, or above its inverse, squares leave float64


def cosine_cost(source: Tensor, target: Tensor) -> Tensor:
    """Cosine distance 1 - cos of every source row to every target row.

    Args:
        source: Features of source classes, clusters or samples, shape ``(n, d)``, any float type.
        target: The same of the target, shape ``(m, d)``.

    Returns:
        Distances in [0, 2], shape ``(n, m)`` float64; they do not change with the length of any row.

    Raises:
        ValueError: If a row is not finite or has no length, or the widths differ.
        TypeError: If an argument is not a float tensor.

    Reference:
        Liu et al., "Improved Fine-Tuning by Better Leveraging Pre-Training Data", NeurIPS 2022,
        https://arxiv.org/abs/2111.12292; the authors divide by 0.1 what is returned here.

    Example:
        >>> import torch
        >>> cosine_cost(torch.tensor([[1.0, 0.0], [0.0, 5.0]]), torch.tensor([[2.0, 0.0], [-1.0, 0.0]])).tolist()
        [[0.0, 2.0], [1.0, 1.0]]
    """
    source, target = check_features(source, "source", convert=False), check_features(target, "target")
    check_matrix(source, "source", like=target)
    directions = normalised(target, "target").to(source.device).T
    length = torch.linalg.vector_norm(source, dim=1, keepdim=True, dtype=torch.float64)
    if not has_lengths(length):
        source, length = normalised(source.double(), "source"), torch.ones_like(length)
    cosines = directions.new_empty(len(source), directions.shape[1])
    size = max(1, _PIECE_ELEMENTS // source.shape[1])
    for piece, rows in zip(cosines.split(size), source.split(size), strict=True):
        torch.mm(rows.double(), directions, out=piece)
    return cosines.div_(-length).add_(1).clamp_(0, 2)


def euclidean_cost(source: Tensor, target: Tensor) -> Tensor:
    """Euclidean distance of every source row to every target row.

    Args:
        source: Features of source classes, clusters or samples, shape ``(n, d)``, any float type.
        target: The same of the target, shape ``(m, d)``.

    Returns:
        Distances at least 0 in the unit of the features, shape ``(n, m)`` float64.

    Raises:
        ValueError: If a row is not finite, or the widths differ.
        TypeError: If an argument is not a float tensor.

    Example:
        >>> import torch
        >>> euclidean_cost(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist()
        [[5.0, 0.0]]
    """
    source, target = check_features(source, "source"), check_features(target, "target")
    check_matrix(source, "source", like=target)
    return torch.cdist(source, target.to(source.device), compute_mode="donot_use_mm_for_euclid_dist")


def normalised(features: Tensor, name: str) -> Tensor:
    """Return the rows of checked float64 ``features``, each divided by its length."""
    length = features.norm(dim=1, keepdim=True)
    if has_lengths(length):
        return features / length
    largest = features.abs().amax(dim=1, keepdim=True)
    zero = (largest == 0).flatten().nonzero().flatten()
    if len(zero):
        raise ValueError(
            f"`{name}` must have rows that are not all zero, got {len(zero)} of {len(features)} without length, the "
            f"first is row {int(zero[0])}. A cosine needs a direction: leave the row out or take another layer."
        )
    rows = features / largest
    return rows.div_(rows.norm(dim=1, keepdim=True))


def has_lengths(length: Tensor) -> bool:
    """Tell whether all lengths, by squares in float64, are right: none is zero, not finite, or near either."""
    return bool(length.min() > _LEAST_LENGTH and length.max() < 1 / _LEAST_LENGTH)
