"""Products of which one matrix is a triangle, at half the multiplications, by BLAS: torch has none.

Other devices than the CPU make the whole product. All tensors are float64; what is called ``lower`` is zero above its
diagonal.
"""

import torch
from torch import Tensor


def add_gram(upper: Tensor, piece: Tensor) -> None:
    """Add ``P^T P`` for a piece P ``(b, size)`` to ``upper (size, size)``, on and above its diagonal at least."""
    if upper.device.type != "cpu":
        upper.addmm_(piece.T, piece)
        return
    from scipy.linalg.blas import dsyrk

    # BLAS reads columns first, so it sees the transpose of each matrix, and what is above the diagonal below it
    columns, transposed = (piece.T, 0) if piece.is_contiguous() else (piece, 1)
    dsyrk(1.0, columns.numpy(), trans=transposed, beta=1.0, c=upper.T.numpy(), lower=1, overwrite_c=1)


def inverse_of(lower: Tensor) -> Tensor:
    """Return the inverse of a triangle ``(size, size)``."""
    if lower.device.type != "cpu":
        identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        return torch.linalg.solve_triangular(lower, identity, upper=False)
    from scipy.linalg.lapack import dtrtri

    inverse, _ = dtrtri(lower.contiguous().T.numpy(), lower=0)
    return torch.from_numpy(inverse).T


def times_rows(lower: Tensor, rows: Tensor) -> Tensor:
    """Return ``lower @ row`` for each of ``rows (b, size)``, shape ``(b, size)``."""
    if lower.device.type != "cpu":
        return rows @ lower.T
    from scipy.linalg.blas import dtrmm

    product = dtrmm(1.0, lower.contiguous().T.numpy(), rows.contiguous().T.numpy(), lower=0, trans_a=1)
    return torch.from_numpy(product).T
