"""Huang et al. 2022 (arXiv:2106.09362): R(Z, eps) - R(Z, eps | Y), with d x d determinants."""

import numpy as np


def coding_rate_as_written(z, eps, w=None):
    """1/2 ln det(I + Z^T Z / (n eps)); sample i counts w_i times."""
    w = np.ones(len(z)) if w is None else w
    return 0.5 * np.linalg.slogdet(np.eye(z.shape[1]) + (w[:, None] * z).T @ z / (w.sum() * eps))[1]


def transrate_as_written(features, labels, eps=1e-4, unit_trace=True, weights=None):
    """Class rates weighted n_c / n; with ``unit_trace`` the covariance of Z has trace 1."""
    f, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    w = np.ones(len(f)) if weights is None else np.asarray(weights)
    z = f - np.average(f, axis=0, weights=w)
    if unit_trace:
        z = z / np.sqrt(np.average((z**2).sum(axis=1), weights=w))
    conditional = 0.0
    for c in np.unique(y):
        conditional += w[y == c].sum() / w.sum() * coding_rate_as_written(z[y == c], eps, w[y == c])
    return coding_rate_as_written(z, eps, w) - conditional


def transrate_with_classes_of_equal_weight(features, labels, eps=1e-4):
    """The variant printed in the paper and copied by the Transfer-Learning-Library: 1 / C, features as given."""
    f, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    z = f - f.mean(axis=0)
    rates = [coding_rate_as_written(z[y == c], eps) for c in np.unique(y)]
    return coding_rate_as_written(z, eps) - sum(rates) / len(rates)
