"""The penalty of Chen et al., NeurIPS 2019: the smallest singular values of F by an SVD, and its gradient."""

import numpy as np


def bss_as_written(features, k):
    _, sigma, _ = np.linalg.svd(features.T)  # descending
    total = 0.0
    for i in range(1, k + 1):
        total += sigma[-i] ** 2
    return total


def bss_gradient_as_written(features, k):
    """The sum over the k smallest of 2 sigma u v', where they stand apart from the others."""
    u, sigma, vt = np.linalg.svd(features, full_matrices=False)
    gradient = np.zeros_like(features)
    for i in range(1, k + 1):
        gradient += 2 * sigma[-i] * np.outer(u[:, -i], vt[-i])
    return gradient
