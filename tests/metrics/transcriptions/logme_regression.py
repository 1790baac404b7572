"""You et al. 2021 (arXiv:2102.11005): ln N(y; 0, I / beta + F F^T / alpha) / n at its maximum."""

import numpy as np
from scipy.optimize import minimize_scalar


def evidence_as_written(y, f, alpha, beta):
    """ln N(y; 0, I / beta + F F^T / alpha), from the dense n x n covariance."""
    covariance = np.eye(len(y)) / beta + f @ f.T / alpha
    return -0.5 * (len(y) * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + y @ np.linalg.solve(covariance, y))


def best_precisions_as_written(y, f):
    """Alpha and beta of the largest evidence: beta in closed form, alpha / beta by a scan and Brent's method."""
    n, gram = len(y), f @ f.T

    def precisions(log_t):
        t = np.trace(gram) / n * np.exp(log_t)
        beta = n / (y @ np.linalg.solve(np.eye(n) + gram / t, y))
        return t * beta, beta

    def loss(log_t):
        return -evidence_as_written(y, f, *precisions(log_t))

    lowest = -36 if n <= f.shape[1] else -16  # with fewer features than samples the matrix becomes singular
    scan = np.arange(lowest, 25, 0.5)
    start = scan[np.argmin([loss(log_t) for log_t in scan])]
    found = minimize_scalar(loss, bounds=(start - 0.5, start + 0.5), method="bounded", options={"xatol": 1e-10})
    return precisions(found.x)


def logme_regression_as_written(features, targets):
    """One column of the targets after the other."""
    f, t = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    columns = t.reshape(len(t), -1).T
    return np.mean([evidence_as_written(y, f, *best_precisions_as_written(y, f)) / len(y) for y in columns])
