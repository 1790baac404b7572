"""Shrunk linear discriminant analysis, of samples as they are or of each held out in turn.

The covariance is (1 - shrinkage) W / n + shrinkage v I, with W the within-class scatter and v = tr W / (n d); the
priors are the class frequencies. Its discriminants need the k - 1 Fisher directions only, which are the span of
A M^T with A the inverse covariance and M the class means: k right-hand sides and no eigenvectors.
"""

import math

import torch
from torch import Tensor

from hf_zoosel.metrics._scatter import Scatter

LEAST_SHRINKAGE = 1e-10
_LEAST_WITHIN = 1e-12  # of the total scatter: less within-class scatter counts as that much
_ARPACK_SIZE = 100  # below it a full decomposition is as fast


def shrinkage_of(scatter: Scatter) -> float:
    """Return exp(-5 lambda_max(W / n)), at least 1e-10."""
    return max(math.exp(-5 * _largest_eigenvalue(scatter.within) / len(scatter.y)), LEAST_SHRINKAGE)


def _largest_eigenvalue(matrix: Tensor) -> float:
    if len(matrix) < _ARPACK_SIZE or not matrix.any():
        return max(0.0, torch.linalg.eigvalsh(matrix)[-1].item())
    from scipy.sparse.linalg import eigsh

    dense = matrix.contiguous().cpu().numpy()  # products with a part of a matrix would copy it each time
    start = dense[dense.diagonal().argmax()]  # a fixed one, and not orthogonal to the answer
    # the error of an eigenvalue is of the order of the tolerance squared
    return float(eigsh(dense, k=1, which="LA", v0=start, tol=1e-8, return_eigenvectors=False)[0])


def posteriors(scatter: Scatter, shrinkage: float, *, held_out: bool) -> Tensor:
    """Return p(y_i | x_i), shape (n,), under the classifier of all samples, or of all but i where ``held_out``.

    A sample held out is absent from the means, W, n and the priors; ``shrinkage`` and v remain those of all samples.
    With e = x_i - m_y, w = n_y / (n_y - 1), h = e^T A e and g_c = e^T A (m_y - m_c), removing i takes w e e^T from
    W, and by the Sherman-Morrison formula the squared distance of x_i to m_c exceeds that to its own mean by

        (h (1 - w^2) + 2 g_c + w s g_c^2) / (1 - w s h) + |m_y - m_c|^2,    s = (1 - shrinkage) / (n - 1),

    lengths under A. With w = h = 0 and s = (1 - shrinkage) / n it is so for the classifier of all samples.
    """
    y, counts = scatter.y, scatter.y.bincount().double()
    n, within = len(y), scatter.within.trace().item()
    total = within + (counts @ scatter.between().diagonal()).item()
    variance = max(within, _LEAST_WITHIN * total) / (n * scatter.n_features) or 1.0  # rows all equal: any will do
    scale = (1 - shrinkage) / (n - held_out)
    weight = torch.where(counts > 1, counts / (counts - 1), 0.0)[y] * held_out
    distances, solved = scatter.solve(scale, shrinkage * variance, weight)

    probs = torch.empty(n, dtype=torch.float64, device=y.device)
    for part in solved:
        own, w = y[part.rows, None], weight[part.rows, None]
        gap = part.cross.gather(1, own) - part.cross  # (b, k)  g_c
        farther = (part.leverage * (1 - w.square()) + 2 * gap + w * scale * gap.square()) / part.spare
        log_odds = counts.log() - (farther + distances[y[part.rows]]) / 2
        log_odds.scatter_(1, own, (counts - int(held_out)).log()[own])
        probs[part.rows] = log_odds.log_softmax(dim=1).gather(1, own).squeeze(1).exp()
    return probs
