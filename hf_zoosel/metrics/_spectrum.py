"""The singular value decomposition of a tall or wide feature matrix, from the smaller of its two Grams."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, class_sums, gram_of_columns, gram_of_rows
from hf_zoosel.metrics._tridiagonal import Tridiagonal


@dataclass(frozen=True)
class Spectrum:
    """``G = U diag(sqrt(values)) V^T``, from ``G G^T`` where ``n <= 1.25 d``, else from ``G^T G``.

    The first also where n is a little above d: duplicates can leave an exact fit there, and the small differences of
    leverages from 1 are exact only where ``U`` spans all of R^n.

    Attributes:
        values: Squared singular values, shape ``(r,)``. For ``n <= 1.25 d`` all n of them, zero where they are
            rounding; else those above rounding only.
        features: The matrix as given, shape ``(n, d)``.
        centre: The row that ``G`` is ``features`` minus, shape ``(d,)``, or None.
        basis: ``U`` itself ``(n, n)``, or ``V / sqrt(values)`` ``(d, r)``: then ``U = G @ basis``.
    """

    values: Tensor
    features: Tensor
    centre: Tensor | None
    basis: Tensor

    @property
    def is_wide(self) -> bool:
        """Whether ``U`` spans all of R^n."""
        return _is_wide(self.features)

    def left(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield ``(rows, U[rows])``, shape ``(b, r)``."""
        if self.is_wide:
            yield slice(0, len(self.basis)), self.basis
        else:
            for rows, block in blocks(self.features, self.centre):
                yield rows, block @ self.basis

    def project(self, y: Tensor) -> Tensor:
        """Return ``U^T Y`` of shape ``(r, k)``, where ``Y`` is the one-hot form of ``y``."""
        if self.is_wide:
            return class_sums(self.basis, y).T
        return (class_sums(self.features, y, self.centre) @ self.basis).T

    def project_columns(self, columns: Tensor) -> Tensor:
        """Return ``U^T Y`` of shape ``(r, k)`` for any float64 columns ``Y`` of shape ``(n, k)``."""
        if self.is_wide:
            return self.basis.T @ columns
        return self.basis.T @ _products(self.features, self.centre, columns)


def spectrum(features: Tensor, centre: Tensor | None = None) -> Spectrum:
    """Decompose ``features - centre``; O(n d min(n, d)) time, O(min(n, d)^2) memory."""
    is_wide = _is_wide(features)
    values, vectors = _eigenvectors(gram_of_rows(features, centre) if is_wide else gram_of_columns(features, centre))
    significant = _significant(values, features)
    if is_wide:
        return Spectrum(values * significant, features, centre, vectors)
    values, vectors = values[significant], vectors[:, significant]
    return Spectrum(values, features, centre, vectors / values.sqrt())


def projected_spectrum(features: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``spectrum(features)`` has as ``values`` and as ``project_columns(columns)``, in half the time."""
    is_wide = _is_wide(features)
    decomposed = Tridiagonal.of(gram_of_rows(features) if is_wide else gram_of_columns(features))
    projected = decomposed.projections(columns if is_wide else _products(features, None, columns)).to(features.device)
    values = decomposed.values.to(features.device)
    significant = _significant(values, features)
    if is_wide:
        return values * significant, projected
    values = values[significant]
    return values, projected[significant] / values.sqrt()[:, None]


def _is_wide(features: Tensor) -> bool:
    return 4 * features.shape[0] <= 5 * features.shape[1]


def _significant(values: Tensor, features: Tensor) -> Tensor:
    """Tell which eigenvalues of a Gram of the features, ascending, are above rounding; some others are negative."""
    return values > max(features.shape) * torch.finfo(torch.float64).eps * values[-1]


def _products(features: Tensor, centre: Tensor | None, columns: Tensor) -> Tensor:
    """Return ``G^T Y`` of shape ``(d, k)``, where ``G = features - centre``."""
    product = torch.zeros(features.shape[1], columns.shape[1], dtype=torch.float64, device=columns.device)
    for rows, block in blocks(features, centre):
        product.addmm_(block.T, columns[rows])
    return product


def _eigenvectors(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return all eigenvalues, ascending, and eigenvectors of a symmetric matrix, whose entries are lost."""
    if gram.device.type != "cpu":
        values, vectors = torch.linalg.eigh(gram)
        return values, vectors
    from scipy.linalg import eigh  # the same method as torch's, and faster

    values, vectors = eigh(gram.T.numpy(), overwrite_a=True, check_finite=False, driver="evd")
    return torch.from_numpy(values), torch.from_numpy(vectors)
