"""Within-class scatter of a task, and solutions with it, on the side of the features or of the samples.

Notation: n samples of k classes in d dimensions; M (k, d) the class means; E (n, d) each sample less the mean of its
class; W = E^T E the within-class scatter. E E^T has the same trace and the same largest eigenvalue.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, class_sums, column_slices, mean_row, row_slices, sum_of_grams
from hf_zoosel.metrics._triangles import inverse_of, times_rows

_ROUNDING = 1e-13  # of a squared length: smaller differences of squared lengths are rounding


@dataclass(frozen=True)
class Solved:
    """What the discriminants of a block of b samples need, with ``A = (scale W + ridge I)^-1``.

    Attributes:
        rows: The samples.
        cross: ``E A M^T`` of these rows, shape ``(b, k)``.
        leverage: Diagonal of ``E A E^T``, shape ``(b, 1)``; zeros where ``weight`` is.
        spare: ``1 - weight * scale * leverage``, shape ``(b, 1)``, exact where it is nearly 0.
    """

    rows: slice
    cross: Tensor
    leverage: Tensor
    spare: Tensor


class Scatter(Protocol):
    """A task reduced to its scatter."""

    @property
    def y(self) -> Tensor:
        """Class of each sample, ``0..k-1``, shape ``(n,)``."""

    @property
    def within(self) -> Tensor:
        """``W`` (d, d) or ``E E^T`` (n, n)."""

    @property
    def n_features(self) -> int:
        """The dimension d."""

    def between(self) -> Tensor:
        """Return ``M M^T`` about the mean of all samples, shape ``(k, k)``."""

    def mixed(self, keep: Tensor) -> "Scatter":
        """Return the scatter of ``keep_i x_i + (1 - keep_i) o_i``, o_i the mean of the means of the other classes."""

    def solve(self, scale: float, ridge: float, weight: Tensor) -> tuple[Tensor, Iterator[Solved]]:
        """Return squared distances of the means under A, shape ``(k, k)``, and all samples in blocks.

        ``weight`` (n,) is n_c / (n_c - 1) of a sample that is held out, 0 of others and of one alone in its class.
        """


def scatter_of(x: Tensor, y: Tensor) -> Scatter:
    """Take the cheaper side, on which leverages near 1 are exact as well."""
    samples = _Samples(x, y, mean_row(x))
    return _Rows.of(samples) if len(x) - int(y.max()) - 1 <= x.shape[1] else _Columns.of(samples)


@dataclass(frozen=True)
class _Samples:
    """Samples relative to ``centre``, as they are or mixed: ``keep_i x_i + (1 - keep_i) others[y_i]``."""

    x: Tensor
    y: Tensor
    centre: Tensor
    mix: tuple[Tensor, Tensor] | None = None  # keep (n,), others (k, d)

    def less(self, means: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Yield ``(rows, samples - means[y])``, to be read before the next."""
        for rows, block in blocks(self.x, self.centre):  # with a centre it is a copy, free to be changed
            if self.mix is not None:
                keep, others = self.mix[0][rows, None], self.mix[1].index_select(0, self.y[rows])
                block.mul_(keep).addcmul_(1 - keep, others)
            if means is not None:
                block.sub_(means.index_select(0, self.y[rows]))  # half the time of means[...]
            yield rows, block

    def class_means(self) -> Tensor:
        """Return the mean of each class, shape ``(k, d)``."""
        counts = self.y.bincount().double()
        means = torch.zeros(len(counts), self.x.shape[1], dtype=torch.float64, device=self.y.device)
        for rows, block in self.less():
            means.index_add_(0, self.y[rows], block)
        return means / counts[:, None]


@dataclass(frozen=True)
class _Columns:
    """The side of the features, for n - k > d: one d x d matrix and blocks of samples."""

    samples: _Samples
    means: Tensor  # (k, d)
    within: Tensor  # (d, d)

    @classmethod
    def of(cls, samples: _Samples) -> "_Columns":
        means = samples.class_means()
        residuals = (block for _, block in samples.less(means))
        return cls(samples, means, sum_of_grams(residuals, means.shape[1], means.device))

    @property
    def y(self) -> Tensor:
        return self.samples.y

    @property
    def n_features(self) -> int:
        return self.samples.x.shape[1]

    def between(self) -> Tensor:
        centred = self.means - self.y.bincount().double() @ self.means / len(self.y)
        return centred @ centred.T

    def mixed(self, keep: Tensor) -> Scatter:
        return _Columns.of(replace(self.samples, mix=(keep, _others(self.means))))

    def solve(self, scale: float, ridge: float, weight: Tensor) -> tuple[Tensor, Iterator[Solved]]:
        covariance = scale * self.within
        covariance.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(covariance)
        half = torch.linalg.solve_triangular(factor, self.means.T, upper=False)  # (d, k)
        return _squared_distances(half.T @ half), self._solved(factor, half, scale * weight)

    def _solved(self, factor: Tensor, half: Tensor, scaled_weight: Tensor) -> Iterator[Solved]:
        directions = torch.linalg.solve_triangular(factor.T, half, upper=True)  # (d, k)  A M^T
        inverse = inverse_of(factor) if scaled_weight.any() else None
        for rows, block in self.samples.less(self.means):
            leverage = block.new_zeros(len(block), 1)
            if inverse is not None:
                leverage = times_rows(inverse, block).square_().sum(dim=1, keepdim=True)  # |L^-1 e|^2
            yield Solved(rows, block @ directions, leverage, 1 - scaled_weight[rows, None] * leverage)


@dataclass(frozen=True)
class _Rows:
    """The side of the samples, for n - k <= d: everything from inner products.

    They are those of E and M, not of the samples: a class that has collapsed to a point then has residuals of 0.
    """

    y: Tensor
    n_features: int
    products: Tensor  # (n + k, n + k)  of the rows of E, then of M, with each other

    @classmethod
    def of(cls, samples: _Samples) -> "_Rows":
        x, y, means = samples.x, samples.y, samples.class_means()

        def pieces() -> Iterator[Tensor]:
            for columns in column_slices(*x.shape):
                residuals = x[:, columns].double() - samples.centre[columns] - means[:, columns][y]
                yield torch.cat([residuals, means[:, columns]]).T

        products = sum_of_grams(pieces(), len(y) + len(means), y.device)
        return cls(y, x.shape[1], products)

    @property
    def within(self) -> Tensor:
        return self.products[: len(self.y), : len(self.y)]

    @property
    def cross(self) -> Tensor:
        """``E M^T``, shape ``(n, k)``."""
        return self.products[: len(self.y), len(self.y) :]

    @property
    def means(self) -> Tensor:
        """``M M^T``, shape ``(k, k)``."""
        return self.products[len(self.y) :, len(self.y) :]

    def between(self) -> Tensor:
        shares = self.y.bincount().double() / len(self.y)
        toward = self.means @ shares  # (k,)  m_c . m
        return self.means - toward - toward[:, None] + shares @ toward

    def mixed(self, keep: Tensor) -> Scatter:
        products = self.products.clone()
        self._mix(products, keep)
        self._mix(products.T, keep)
        return _Rows(self.y, self.n_features, products)

    def _mix(self, stacked: Tensor, keep: Tensor) -> None:
        """Turn rows that are linear in those of E, then of M, into those for the mixed samples, in place."""
        residuals, means = stacked[: len(self.y)], stacked[len(self.y) :]
        kept = _class_means(keep[:, None], self.y)  # (k, 1)
        others = _others(means)
        away = means - others
        residuals *= keep[:, None]
        shift = _class_means(residuals, self.y)
        for rows in row_slices(residuals):
            y = self.y[rows]
            residuals[rows] += (keep[rows, None] - kept[y]) * away[y] - shift[y]
        means.copy_(shift + others + kept * away)

    def solve(self, scale: float, ridge: float, weight: Tensor) -> tuple[Tensor, Iterator[Solved]]:
        # With R = (scale E E^T + ridge I)^-1: E A = R E. On the k vectors that are constant within classes, which
        # E^T sends to 0, R is 1 / ridge; what is factored is ``level`` there, or rounding would hide the rest of R.
        counts = self.y.bincount().double()[self.y]  # (n,)
        level = scale * self.within.trace().item() / len(counts) + ridge
        factor = self._factor(scale, ridge, (level - ridge) / counts)
        solution = torch.cholesky_solve(self.cross, factor)  # (n, k)  E A M^T

        fitted = scale * solution.T @ solution
        left = self.means - scale * self.cross.T @ solution - ridge * fitted  # ridge^2 M A A M^T
        apart = _squared_distances(left)
        apart *= apart > _ROUNDING * self.products.diagonal().max()  # rounding is no separation, even over ridge
        distances = apart / ridge + _squared_distances(fitted)

        leverage, spare = torch.zeros_like(counts), torch.ones_like(counts)
        if weight.any():
            inverse, held = torch.cholesky_inverse(factor), weight > 0
            for rows in row_slices(inverse):  # a product of the whole would be another n x n matrix
                leverage[rows] = (inverse[rows] * self.within[rows]).sum(dim=1)
            leverage *= held
            spare = torch.where(held, weight * ridge * (inverse.diagonal() - 1 / (level * counts)), 1.0)
        return distances, iter([Solved(slice(0, len(counts)), solution, leverage[:, None], spare[:, None])])

    def _factor(self, scale: float, ridge: float, constant: Tensor) -> Tensor:
        """Return the Cholesky factor of scale E E^T + ridge I + constant where i and j are of one class."""
        matrix = scale * self.within
        for rows in row_slices(matrix):
            matrix[rows] += (self.y[rows, None] == self.y) * constant
        matrix.diagonal().add_(ridge)
        return torch.linalg.cholesky(matrix)


def _others(means: Tensor) -> Tensor:
    """Return the mean of the means of the other classes, for each class."""
    return (means.sum(dim=0) - means) / (len(means) - 1)


def _class_means(matrix: Tensor, y: Tensor) -> Tensor:
    return class_sums(matrix, y) / y.bincount()[:, None]


def _squared_distances(products: Tensor) -> Tensor:
    """Return |v_b - v_c|^2 from the products ``v_b . v_c``, both of shape ``(k, k)``."""
    squares = products.diagonal()
    return (squares[:, None] + squares - 2 * products).clamp_min(0)
