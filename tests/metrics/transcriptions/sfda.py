"""SFDA (arXiv:2207.03036) by the book: d x d matrices, and one fit for every sample that is held out."""

import numpy as np


def shrinkage_as_written(x, y):
    """Return exp(-5 lambda_max) of the within-class covariance, at least 1e-10."""
    return max(np.exp(-5 * np.linalg.eigvalsh(within_covariance(x, y))[-1]), 1e-10)


def within_covariance(x, y):
    residuals = np.array([x[i] - x[y == y[i]].mean(axis=0) for i in range(len(y))])
    return residuals.T @ residuals / len(y)


def posterior_as_written(row, x, y, shrinkage, variance):
    """Eqs. 5-6: the posteriors of one row, class by class, under the classifier of the samples x."""
    covariance = (1 - shrinkage) * within_covariance(x, y) + shrinkage * variance * np.eye(x.shape[1])
    discriminants = {}
    for c in np.unique(y):
        mean = x[y == c].mean(axis=0)
        difference = row - mean
        discriminants[c] = -0.5 * difference @ np.linalg.solve(covariance, difference) + np.log(np.mean(y == c))
    largest = max(discriminants.values())
    total = sum(np.exp(value - largest) for value in discriminants.values())
    return {c: np.exp(value - largest) / total for c, value in discriminants.items()}


def own_posteriors_as_written(x, y, shrinkage, held_out):
    variance = np.trace(within_covariance(x, y)) / x.shape[1]
    own = []
    for i in range(len(y)):
        others = np.arange(len(y)) != i if held_out else np.ones(len(y), dtype=bool)
        own.append(posterior_as_written(x[i], x[others], y[others], shrinkage, variance).get(y[i], 0.0))
    return np.array(own)


def sfda_as_written(features, labels, held_out=True, soften=False):
    """Mean posterior after ConfMix; ``soften`` is the second softmax of the authors' code, for two classes."""
    x, y = features.double().numpy(), labels.numpy()
    shrinkage = shrinkage_as_written(x, y)
    confidence = own_posteriors_as_written(x, y, shrinkage, held_out=False)
    if soften:
        confidence = np.exp(confidence) / (np.exp(confidence) + np.exp(1 - confidence))
    means = {c: x[y == c].mean(axis=0) for c in np.unique(y)}
    mixed = np.empty_like(x)
    for i in range(len(y)):
        others = np.mean([means[c] for c in means if c != y[i]], axis=0)
        mixed[i] = confidence[i] * x[i] + (1 - confidence[i]) * others  # Eq. 7
    return own_posteriors_as_written(mixed, y, shrinkage, held_out).mean()
