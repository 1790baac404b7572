"""The rows whose products are a feature kernel: as they are, centred, of unit length, or both; never all at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, column_slices, mean_row, per_row, square_tiles, sum_of_grams

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

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield ``(rows, g[rows])``, to be read before the next one takes its place."""
        first = self.mean if self.shift is None and self.scale is None else self.shift
        for rows, block in blocks(self.features, first):
            yield rows, block if self.scale is None else (block * self.scale[rows, None]).sub_(self.mean)

    def piece(self, rows: slice, columns: slice) -> Tensor:
        """Return ``g[rows, columns]``."""
        block = self.features[rows, columns].to(torch.float64, copy=True)
        if self.shift is not None:
            block.sub_(self.shift[columns])
        if self.scale is not None:
            block.mul_(self.scale[rows, None])
        return block.sub_(self.mean[columns])

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
        return sum_of_grams((block for _, block in self.blocks()), len(self.mean), self.mean.device)

    def pair_norms(self) -> Tensor:
        """Return ``sum_j (g_i . g_j)^2``, shape ``(n,)``, from tiles of the n x n side."""
        norms = self.mean.new_zeros(len(self.features))
        for i, j in square_tiles(len(norms)):
            squares = self._tile(i, j).square_()
            norms[i] += squares.sum(dim=1)
            if i != j:
                norms[j] += squares.sum(dim=0)
        return norms

    def _tile(self, i: slice, j: slice) -> Tensor:
        """Return ``g_i . g_j``, shape ``(i, j)``, a few columns of g at a time."""
        width = i.stop - i.start
        pieces = column_slices(width, len(self.mean))
        if i == j:
            return sum_of_grams((self.piece(i, columns).T for columns in pieces), width, self.mean.device)
        products = self.mean.new_zeros(width, j.stop - j.start)
        for columns in pieces:
            products.addmm_(self.piece(i, columns), self.piece(j, columns).T)
        return products


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
