"""NLEEP (arXiv:2011.11200): PCA by the SVD, EM component by component, LEEP of the posteriors."""

import numpy as np
import torch
from sklearn.cluster import KMeans

from tests.metrics.transcriptions.leep import leep_as_written

FLOOR, GAIN, STEPS = 1e-6, 1e-3, 100  # of a variance; the least that a step gains; the most steps


def principal_as_written(f, energy):
    u, s, _ = np.linalg.svd(f - f.mean(axis=0), full_matrices=False)
    r = next(r for r in range(1, len(s) + 1) if (s[:r] ** 2).sum() >= energy * (s**2).sum())
    points = u[:, :r] * s[:r]
    return np.round(points / np.sqrt((points**2).mean()), 6)


def log_density_as_written(points, mean, covariance):
    deviations = points - mean
    squares = (deviations * np.linalg.solve(covariance, deviations.T).T).sum(axis=1)
    return -0.5 * (squares + np.linalg.slogdet(covariance)[1] + len(mean) * np.log(2 * np.pi))


def joint_as_written(points, posterior, covariance):
    """An M step, then ln P(component) p(point | component), (n, count)."""
    joint = np.empty_like(posterior)
    for v, p in enumerate(posterior.T):
        mass = p.sum() + 10 * np.finfo(float).eps  # so the library lets components without samples live
        mean = p @ points / mass
        sigma = (p[:, None] * (points - mean)).T @ (points - mean) / mass + FLOOR * np.eye(len(mean))
        sigma = np.diag(np.diag(sigma)) if covariance == "diag" else sigma
        joint[:, v] = np.log(mass / len(points)) + log_density_as_written(points, mean, sigma)
    return joint


def mixture_as_written(points, count, covariance, seed):
    """EM from the partition of k-means: P(component | sample), (n, count)."""
    start = KMeans(count, n_init=1, random_state=np.random.RandomState(seed)).fit(points).labels_
    posterior, before = np.eye(count)[start], -np.inf
    for _ in range(STEPS):
        joint = joint_as_written(points, posterior, covariance)
        likelihood = np.logaddexp.reduce(joint, axis=1)
        posterior = np.exp(joint - likelihood[:, None])
        if abs(likelihood.mean() - before) < GAIN:
            break
        before = likelihood.mean()
    joint = joint_as_written(points, posterior, covariance)
    return np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])


def nleep_as_written(features, labels, seed=0, energy=0.8, components_per_class=5, covariance="diag"):
    """Samples sorted by their features; as many components as asked, at most n / 2 and distinct rows."""
    order = sorted(range(len(labels)), key=lambda i: features[i].tolist())
    f, y = features[order].double().numpy(), labels[order]
    distinct = len({row.tobytes() for row in f})
    count = min(components_per_class * len(set(y.tolist())), max(1, len(y) // 2), distinct)
    posterior = mixture_as_written(principal_as_written(f, energy), count, covariance, seed)
    return leep_as_written(torch.from_numpy(posterior[:, posterior.any(axis=0)]), y)
