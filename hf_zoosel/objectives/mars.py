"""Distance-based regularisation: hold each layer within a ball around its start (Gouk et al. 2021)."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from hf_zoosel.objectives.l2_sp import check_start

Norm = Literal["mars", "frobenius"]


def project_distances(
    weights: Mapping[str, Tensor], start: Mapping[str, Tensor], *, radius: float, norm: Norm = "mars"
) -> None:
    """Pull every layer that has gone too far back to its ball, in place, without gradients.

    To be called after each step of the optimizer, on every process alike.

    Args:
        weights: Parameters of the backbone by name. Those of 2 or more dimensions are projected, as matrices of one
            row per output: a convolution as ``(out, in * kh * kw)``. Biases and normalisation weights are left alone.
        start: What each of them was before training, under the same name.
        radius: Largest distance allowed to a layer, >= 0; 0 freezes them. A layer within it keeps its bits.
        norm: "mars" measures by the maximum absolute row sum, "frobenius" by the root of the sum of squares.

    Raises:
        ValueError: If ``radius`` is negative or NaN, ``norm`` unknown, ``weights`` empty, or ``start`` lacks one of
            them.

    Reference:
        Gouk, Hospedales and Pontil, "Distance-based regularisation of deep networks for fine-tuning", ICLR 2021,
        https://arxiv.org/abs/2002.08253: W <- W0 + (W - W0) / max(1, ||W - W0|| / radius), "MARS-PGM". Deviations:
        the authors' code (github.com/henrygouk/mars-finetuning) scales each row by its own sum, holds the scales of
        batch normalisation in a ball as well, and gives the new classifier a radius of its own; here one factor
        scales the matrix, as the paper writes, and the other two are left to weight decay.

    Example:
        >>> weights = {"fc.weight": torch.tensor([[3.0, 1.0], [0.5, 0.5]])}
        >>> project_distances(weights, {"fc.weight": torch.zeros(2, 2)}, radius=2.0)
        >>> weights["fc.weight"]
        tensor([[1.5000, 0.5000],
                [0.2500, 0.2500]])
    """
    check_start(weights, start)
    if not radius >= 0:
        raise ValueError(f"`radius` must be 0 or more, got {radius}. The authors search 1.6 to 33.")
    if norm not in _NORMS:
        raise ValueError(f"`norm` must be one of {sorted(_NORMS)}, got {norm!r}.")
    with torch.no_grad():
        for name, weight in weights.items():
            if weight.ndim >= 2:
                moved = weight - start[name]
                distance = _NORMS[norm](_rows(moved))
                shorter = start[name] + moved * (radius / distance)
                weight.copy_(torch.where(distance > radius, shorter, weight))  # no wait for the device


def _rows(moved: Tensor) -> Tensor:
    """As a matrix with a row for each output; for each position of an embedding ``(1, n, d)``."""
    is_embedding = moved.ndim == 3 and moved.shape[0] == 1
    return moved[0] if is_embedding else moved.flatten(1)


def _mars(matrix: Tensor) -> Tensor:
    return matrix.abs().sum(dim=1).max()


_NORMS: Mapping[str, Callable[[Tensor], Tensor]] = {"mars": _mars, "frobenius": torch.linalg.vector_norm}
