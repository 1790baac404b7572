"""Float64 sums over the rows of a feature matrix that is never converted as a whole.

Features may be half precision, on any device or memory-mapped: each block of rows is
converted and used in turn, so the extra memory does not depend on the number of rows.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 2**20  # 8 MB in float64; larger blocks are no faster
_MIN_ROWS = 64


def row_slices(matrix: Tensor, *, at_most: int | None = None) -> Iterator[slice]:
    """Yield slices that cover the rows in order, each of about a million elements and ``at_most`` so many rows."""
    step = max(_MIN_ROWS, _BLOCK_ELEMENTS // max(1, matrix.shape[1]))
    step = step if at_most is None else min(step, at_most)
    for start in range(0, len(matrix), step):
        yield slice(start, min(start + step, len(matrix)))


def blocks(matrix: Tensor, centre: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Yield ``(rows, matrix[rows] - centre)`` in float64, to be read before the next one takes its place."""
    buffer = None  # one for all blocks: fresh memory for each costs more than the arithmetic on it
    for rows in row_slices(matrix):
        block = matrix[rows]
        if block.dtype != torch.float64 or centre is not None:
            buffer = torch.empty_like(block, dtype=torch.float64) if buffer is None else buffer
            block = buffer[: len(block)].copy_(block)
        yield rows, block if centre is None else block.sub_(centre)


def mean_row(matrix: Tensor) -> Tensor:
    """Return the mean row ``(d,)`` in float64."""
    first = matrix[0].double()  # sums run relative to it, so identical rows have exactly their own value as the mean
    total = torch.zeros_like(first)
    for _, block in blocks(matrix, first):
        total += block.sum(dim=0)
    return first + total / len(matrix)


def per_row(matrix: Tensor, value: Callable[[slice, Tensor], Tensor], centre: Tensor | None = None) -> Tensor:
    """Return ``value(rows, block)``, each of shape ``(b,)``, for all rows: ``(n,)`` in float64."""
    values = torch.empty(len(matrix), dtype=torch.float64, device=matrix.device)  # joining pieces fragments the heap
    for rows, block in blocks(matrix, centre):
        values[rows] = value(rows, block)
    return values


def class_sums(matrix: Tensor, y: Tensor, centre: Tensor | None = None) -> Tensor:
    """Return the sum of the rows of each class ``(k, d)``, for ``y`` numbered ``0..k-1``."""
    sums = torch.zeros(int(y.max()) + 1, matrix.shape[1], dtype=torch.float64, device=matrix.device)
    for rows, block in blocks(matrix, centre):
        sums.index_add_(0, y[rows], block)
    return sums


def gram_of_columns(matrix: Tensor, centre: Tensor | None = None) -> Tensor:
    """Return ``G^T G`` of shape ``(d, d)``, where ``G = matrix - centre``."""
    d = matrix.shape[1]
    gram = torch.zeros(d, d, dtype=torch.float64, device=matrix.device)
    for _, block in blocks(matrix, centre):
        gram.addmm_(block.T, block)
    return gram


def gram_blocks(matrix: Tensor, centre: Tensor | None = None) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield ``(i, j, G[i] G[j]^T)`` for the blocks on and above the diagonal of ``G G^T``."""
    for i, left in blocks(matrix, centre):
        for j, right in blocks(matrix[i.start :], centre):
            yield i, slice(i.start + j.start, i.start + j.stop), left @ right.T


def gram_of_rows(matrix: Tensor, centre: Tensor | None = None) -> Tensor:
    """Return ``G G^T`` of shape ``(n, n)``."""
    n = len(matrix)
    gram = torch.empty(n, n, dtype=torch.float64, device=matrix.device)
    for i, j, block in gram_blocks(matrix, centre):
        gram[i, j] = block
        gram[j, i] = block.T
    return gram
