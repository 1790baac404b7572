"""The rows whose products are a feature kernel: as they are, centred, of unit length, or both; never all at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, mean_row, per_row

_ROUNDING = 1e-14  # a length this small beside what it is a difference of is zero


@dataclass(frozen=True)
class KernelRows:
    """Rows ``f`` with ``Theta = f f^T``; the sums below are over ``g = f - mean``.

    Attributes:
        features: The features as given, shape ``(n, d)``.
        shift: Taken from each row of features first, shape ``(d,)``; None for nothing.
        scale: Multiplies each row then, which makes it ``f``, shape ``(n,)``; None for nothing.
        mean: The mean row of ``f``, shape ``(d,)``.
    """

    features: Tensor
    shift: Tensor | None
    scale: Tensor | None
    mean: Tensor

    @property
    def is_wide(self) -> bool:
        """Whether the n x n side is the smaller one."""
        return self.features.shape[0] <= self.features.shape[1]

    @property
    def rounding2(self) -> float:
        """What ``||Theta - its mean||^2`` comes to when all rows of unit length are equal but for rounding."""
        return 0.0 if self.scale is None else (_ROUNDING * len(self.features)) ** 2

    def blocks(self, start: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """Yield ``(rows, g[rows])`` from ``start`` on, to be read before the next one takes its place."""
        first = self.mean if self.shift is None and self.scale is None else self.shift
        for own, block in blocks(self.features[start:], first):
            rows = slice(start + own.start, start + own.stop)
            yield rows, block if self.scale is None else (block * self.scale[rows, None]).sub_(self.mean)

    def along(self, direction: Tensor) -> Tensor:
        """Return ``g . direction``, shape ``(n,)``."""
        values = torch.empty(len(self.features), dtype=torch.float64, device=self.features.device)
        for rows, block in self.blocks():
            values[rows] = block @ direction
        return values

    def class_sums(self, y: Tensor) -> Tensor:
        """Return the sum of ``g`` over each class, shape ``(k, d)``, for ``y`` numbered ``0..k-1``."""
        sums = self.mean.new_zeros(int(y.max()) + 1, len(self.mean))
        for rows, block in self.blocks():
            sums.index_add_(0, y[rows], block)
        return sums

    def gram_of_columns(self) -> Tensor:
        """Return ``g^T g``, shape ``(d, d)``."""
        gram = self.mean.new_zeros(len(self.mean), len(self.mean))
        for _, block in self.blocks():
            gram.addmm_(block.T, block)
        return gram

    def pair_norms(self) -> Tensor:
        """Return ``sum_j (g_i . g_j)^2``, shape ``(n,)``, from blocks of the n x n side."""
        norms = self.mean.new_zeros(len(self.features))
        for i, left in self.blocks():
            for j, right in self.blocks(i.start):
                products = (left @ right.T).square_()
                norms[i] += products.sum(dim=1)
                if i != j:
                    norms[j] += products.sum(dim=0)
        return norms


def kernel_rows(features: Tensor, *, centered: bool, cosine: bool) -> KernelRows:
    """Return the rows of the kernel; with both options they are centred first and then of unit length."""
    shift = mean_row(features) if centered else None
    if not cosine:
        return KernelRows(features, shift, None, mean_row(features) if shift is None else torch.zeros_like(shift))
    lengths = per_row(features, lambda _, block: torch.linalg.vector_norm(block, dim=1), shift)
    zero = lengths <= (0.0 if shift is None else _ROUNDING * torch.linalg.vector_norm(shift))
    scale = torch.where(zero, 0.0, 1 / lengths)
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    for rows, block in blocks(features, shift):
        total += scale[rows] @ block
    return KernelRows(features, shift, scale, total / len(features))
