"""The singular value decomposition of a tall or wide feature matrix, from the smaller of its two Grams."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, class_sums, gram_of_columns, gram_of_rows


@dataclass(frozen=True)
class Spectrum:
    """``G = U diag(sqrt(values)) V^T``, from the smaller of ``G G^T`` and ``G^T G``.

    Attributes:
        values: Squared singular values, shape ``(r,)``. For ``n <= d`` all n of them, zero where they are rounding;
            else those above rounding only.
        features: The matrix as given, shape ``(n, d)``.
        centre: The row that ``G`` is ``features`` minus, shape ``(d,)``, or None.
        basis: ``U`` itself ``(n, n)`` for ``n <= d``; else ``V / sqrt(values)`` ``(d, r)``: then ``U = G @ basis``.
    """

    values: Tensor
    features: Tensor
    centre: Tensor | None
    basis: Tensor

    @property
    def is_wide(self) -> bool:
        """Whether there are no more rows than columns, so that ``U`` spans all of R^n."""
        return self.features.shape[0] <= self.features.shape[1]

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
        product = torch.zeros(self.features.shape[1], columns.shape[1], dtype=torch.float64, device=columns.device)
        for rows, block in blocks(self.features, self.centre):
            product.addmm_(block.T, columns[rows])
        return self.basis.T @ product


def spectrum(features: Tensor, centre: Tensor | None = None) -> Spectrum:
    """Decompose ``features - centre``; O(n d min(n, d)) time, O(min(n, d)^2) memory."""
    n, d = features.shape
    gram = gram_of_rows(features, centre) if n <= d else gram_of_columns(features, centre)
    values, vectors = torch.linalg.eigh(gram)
    significant = values > max(n, d) * torch.finfo(torch.float64).eps * values[-1]  # of the others, some are negative
    if n <= d:
        return Spectrum(values * significant, features, centre, vectors)
    values, vectors = values[significant], vectors[:, significant]
    return Spectrum(values, features, centre, vectors / values.sqrt())
