"""Eq. 8 of arXiv:2102.00084 with both n x n matrices."""

import numpy as np


def lfc_as_written(features, labels, weights=None, dtype=np.float64, *, centered=False, cosine=False, order="fro"):
    """Pairs count w_i w_j times; ``order=2`` takes the spectral norm, as copies on the web do."""
    f, y = np.asarray(features).astype(dtype), np.asarray(labels)
    if centered:
        f = f - f.mean(axis=0)
    if cosine:
        f = f / np.linalg.norm(f, axis=1, keepdims=True)
    w = np.ones(len(f), dtype) if weights is None else weights
    pairs = np.outer(w, w) / w.sum() ** 2
    theta, kernel = f @ f.T, np.where(y[:, None] == y, 1, -1).astype(dtype)
    theta, kernel = theta - (pairs * theta).sum(), kernel - (pairs * kernel).sum()
    if order == 2:
        return float((theta * kernel).sum() / np.linalg.norm(theta, 2) / np.linalg.norm(kernel, 2))
    norms = np.sqrt((pairs * theta**2).sum()) * np.sqrt((pairs * kernel**2).sum())
    return float((pairs * theta * kernel).sum() / norms)
