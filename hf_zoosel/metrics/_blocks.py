"""Float64 sums over the rows of a feature matrix that is never converted as a whole.

Features may be half precision, on any device or memory-mapped: each block of rows, or of columns, is
converted and used in turn, so the extra memory does not depend on how many there are.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from hf_zoosel.metrics._triangles import add_gram

_BLOCK_ELEMENTS = 2**20  # 8 MB in float64; larger blocks are no faster
_MIN_ROWS = 256  # or columns: thinner blocks multiply more slowly
_STRIP = 192  # columns: one triangle is copied to the other in strips


def row_slices(matrix: Tensor, *, at_most: int | None = None) -> Iterator[slice]:
    """Yield slices that cover the rows in order, each of about a million elements and ``at_most`` so many rows."""
    n, d = matrix.shape
    return _slices(n, _step(d) if at_most is None else min(_step(d), at_most))


def column_slices(n: int, d: int) -> Iterator[slice]:
    """Yield slices that cover ``d`` columns of ``n`` rows in order, each of about a million elements."""
    return _slices(d, _step(n))


def square_tiles(n: int) -> Iterator[tuple[slice, slice]]:
    """Yield ``(i, j)`` for the tiles on and above the diagonal of an n x n matrix, 4 million elements each."""
    step = max(_MIN_ROWS, math.isqrt(4 * _BLOCK_ELEMENTS))
    tiles = list(_slices(n, step))
    for number, i in enumerate(tiles):
        for j in tiles[number:]:
            yield i, j


def _step(width: int) -> int:
    return max(_MIN_ROWS, _BLOCK_ELEMENTS // max(1, width))


def _slices(length: int, step: int) -> Iterator[slice]:
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


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
    return sum_of_grams((block for _, block in blocks(matrix, centre)), matrix.shape[1], matrix.device)


def gram_of_rows(matrix: Tensor, centre: Tensor | None = None) -> Tensor:
    """Return ``G G^T`` of shape ``(n, n)``."""

    def pieces() -> Iterator[Tensor]:
        for columns in column_slices(*matrix.shape):
            piece = matrix[:, columns].double()
            yield (piece if centre is None else piece - centre[columns]).T

    return sum_of_grams(pieces(), len(matrix), matrix.device)


def sum_of_grams(pieces: Iterable[Tensor], size: int, device: torch.device) -> Tensor:
    """Return the sum of ``P^T P`` over float64 pieces P ``(b, size)``, of which one triangle is made and copied."""
    gram = torch.zeros(size, size, dtype=torch.float64, device=device)
    for piece in pieces:
        add_gram(gram, piece)
    for strip in _slices(size, _STRIP):
        gram[strip.stop :, strip] = gram[strip, strip.stop :].T
        corner = gram[strip, strip]
        corner.copy_(corner.triu() + corner.triu(1).T)
    return gram
