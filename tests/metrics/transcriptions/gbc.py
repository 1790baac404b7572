"""Pandy et al. 2022 (arXiv:2111.12780): -sum_{i != j} exp(-D_B(i, j)) in the leading principal components."""

import numpy as np


def bhattacharyya_as_written(mean_i, mean_j, covariance_i, covariance_j):
    """1/8 dm^T S^-1 dm + 1/2 ln(det S / sqrt(det S_i det S_j)), S the mean of both, with full p x p matrices."""
    middle, delta = (covariance_i + covariance_j) / 2, mean_i - mean_j
    log_det = [np.linalg.slogdet(matrix)[1] for matrix in (middle, covariance_i, covariance_j)]
    return delta @ np.linalg.solve(middle, delta) / 8 + (log_det[0] - (log_det[1] + log_det[2]) / 2) / 2


def gaussian_as_written(points, weights, covariance, floor):
    """Mean and covariance matrix, each variance at least ``floor``."""
    mean = np.average(points, axis=0, weights=weights)
    variances = np.maximum(np.average((points - mean) ** 2, axis=0, weights=weights), floor)
    if covariance == "spherical":
        variances = np.full_like(variances, variances.mean())
    return mean, np.diag(variances)


def principal_components_as_written(features, n_components):
    """Scores on the leading right singular vectors of the centred matrix, (n, p)."""
    f = np.asarray(features, dtype=np.float64)
    u, s, _ = np.linalg.svd(f - f.mean(axis=0), full_matrices=False)
    return u[:, :n_components] * s[:n_components]


def gbc_as_written(features, labels, covariance="spherical", n_components=64, floor=1e-4, weights=None):
    """The floor is in units of the mean variance of the components kept; weights count within classes only."""
    points, y = principal_components_as_written(features, n_components), np.asarray(labels)
    w = np.ones(len(y)) if weights is None else weights
    floor = floor * points.var(axis=0).mean()
    gaussians = [gaussian_as_written(points[y == c], w[y == c], covariance, floor) for c in np.unique(y)]
    score = 0.0
    for i, (mean_i, covariance_i) in enumerate(gaussians):
        for j, (mean_j, covariance_j) in enumerate(gaussians):
            if i != j:
                score -= np.exp(-bhattacharyya_as_written(mean_i, mean_j, covariance_i, covariance_j))
    return score
