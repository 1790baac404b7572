"""Ibrahim et al. 2021 (arXiv:2110.06893): tr(cov_a(F)^-1 (1 - a) cov(E[F|Y])), a by Ledoit & Wolf 2004."""

import numpy as np


def ledoit_wolf_as_written(f):
    """Lemmas 3.2-3.4 of Ledoit & Wolf 2004: a = b^2 / d^2, with the norm ||A||^2 = tr(A A^T) / p."""
    n, p = f.shape
    f = f - f.mean(axis=0)
    s = f.T @ f / n
    m = np.trace(s) / p
    d2 = ((s - m * np.eye(p)) ** 2).sum() / p
    b2_bar = sum(((np.outer(row, row) - s) ** 2).sum() / p for row in f) / n**2
    return min(b2_bar, d2) / d2 if p > 1 else 0.0


def h_score_as_written(features, labels, a=None):
    """Population covariances; a given coefficient ``a`` replaces that of Ledoit and Wolf."""
    f, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    a, p = ledoit_wolf_as_written(f) if a is None else a, f.shape[1]
    conditional = np.zeros_like(f)
    for c in np.unique(y):
        conditional[y == c] = f[y == c].mean(axis=0)
    s = np.cov(f, rowvar=False, bias=True).reshape(p, p)
    between = np.cov(conditional, rowvar=False, bias=True).reshape(p, p)
    if a == 0:
        return np.trace(np.linalg.pinv(s, rcond=1e-12, hermitian=True) @ between)
    shrunk = (1 - a) * s + a * np.trace(s) / p * np.eye(p)
    return np.trace(np.linalg.solve(shrunk, (1 - a) * between))
