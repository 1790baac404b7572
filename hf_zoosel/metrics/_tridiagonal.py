"""Eigenvalues of a symmetric matrix, and only as much of its eigenvectors as is asked for.

All of them cost several times what the reduction to tridiagonal form does: ``M = Q T Q^T``. From T come the
eigenvalues, next to nothing, and the eigenvectors of T, cheap because T is tridiagonal. Those of M, Q times them, are
made for the leading ones alone, and for projections on them not at all: Q is applied to what is projected.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FEW = 8  # up to this fraction of the eigenvectors of T cost less than all of them
_WORK = 64  # columns that LAPACK treats at once

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tridiagonal:
    """A symmetric matrix in tridiagonal form, on the CPU.

    Attributes:
        values: All eigenvalues, ascending, shape ``(size,)``.
    """

    values: Tensor
    _diagonal: _Array  # (size,)  of T
    _beside: _Array  # (size - 1,)  of T, next to the diagonal
    _reflectors: _Array  # (size - 1, size - 1)  of which Q is the product, below the diagonal and on it
    _factors: _Array  # (size - 1,)

    @classmethod
    def of(cls, matrix: Tensor) -> "Tridiagonal":
        """Reduce ``matrix (size, size)``, in float64, whose entries are lost."""
        from scipy.linalg import eigvalsh_tridiagonal
        from scipy.linalg.lapack import dsytrd, dsytrd_lwork

        size = len(matrix)
        work, _ = dsytrd_lwork(size, lower=1)
        # symmetric, so its transpose, which is in the order that LAPACK wants, is the same matrix
        reduced, diagonal, beside, factors, _ = dsytrd(matrix.cpu().T.numpy(), lower=1, lwork=int(work), overwrite_a=1)
        values = diagonal if size == 1 else eigvalsh_tridiagonal(diagonal, beside)
        return cls(torch.from_numpy(np.array(values)), diagonal, beside, reduced[1:, :-1], factors)

    def leading(self, count: int) -> Tensor:
        """Return the eigenvectors of the ``count`` largest eigenvalues, ascending, shape ``(size, count)``."""
        return torch.from_numpy(self._turned(self._own(count), transposed=False))

    def projections(self, columns: Tensor) -> Tensor:
        """Return the products of all eigenvectors with ``columns (size, k)``, shape ``(size, k)``."""
        turned = self._turned(columns.cpu().numpy(), transposed=True)
        return torch.from_numpy(self._own(len(self.values)).T @ turned)

    def _own(self, count: int) -> _Array:
        """Return the eigenvectors of T for the ``count`` largest eigenvalues, ascending, shape ``(size, count)``."""
        from scipy.linalg import eigh_tridiagonal

        size = len(self.values)
        if size == 1:
            return np.ones((1, count))
        some = {} if _FEW * count > size else {"select": "i", "select_range": (size - count, size - 1)}
        vectors = eigh_tridiagonal(self._diagonal, self._beside, lapack_driver="stemr", **some)[1]
        return vectors[:, -count:]

    def _turned(self, columns: _Array, *, transposed: bool) -> _Array:
        """Return Q, or its transpose, times ``columns (size, k)``."""
        from scipy.linalg.lapack import dormqr

        turned = np.array(columns, order="F")  # Q leaves the first row as it is
        if len(turned) > 1:
            work = _WORK * turned.shape[1]
            letter = "T" if transposed else "N"
            turned[1:], _, _ = dormqr("L", letter, self._reflectors, self._factors, turned[1:], lwork=work)
        return turned
