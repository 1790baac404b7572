"""NCTI (Wang et al., ICCV 2023) by the book: explicit covariances, generalised eigenvectors, matrix square roots."""

import numpy as np
import scipy.linalg


def nuclear_norm(matrix):
    return np.linalg.svd(matrix, compute_uv=False).sum()


def ncti_terms_as_written(features, labels, n_components=64):
    x, y = features.double().numpy(), labels.numpy()
    n, classes = len(y), np.unique(y)
    _, _, directions = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    z = (x - x.mean(axis=0)) @ directions[: min(n_components, n - len(classes), x.shape[1])].T

    shrinkage = max(np.exp(-z.var(axis=0, ddof=1)[:32].sum()), 1e-10)
    within, between = np.zeros((z.shape[1],) * 2), np.zeros((z.shape[1],) * 2)
    for c in classes:
        residuals = z[y == c] - z[y == c].mean(axis=0)
        within += residuals.T @ residuals / n
        between += np.mean(y == c) * np.outer(z[y == c].mean(axis=0), z[y == c].mean(axis=0))
    shrunk = (1 - shrinkage) * within + shrinkage * np.trace(within) / len(within) * np.eye(len(within))

    _, vectors = scipy.linalg.eigh(between, shrunk)  # vectors^T shrunk vectors = I, in ascending order
    fisher = vectors[:, ::-1][:, : len(classes) - 1]

    posteriors = np.empty((n, len(classes)))
    for i in range(n):
        discriminants = []
        for c in classes:
            difference = z[i] - z[y == c].mean(axis=0)
            discriminants.append(-0.5 * difference @ np.linalg.solve(shrunk, difference) + np.log(np.mean(y == c)))
        weights = np.exp(np.array(discriminants) - max(discriminants))
        posteriors[i] = weights / weights.sum()
    own = np.mean([posteriors[i, classes.tolist().index(y[i])] for i in range(n)])
    variability = sum(nuclear_norm(posteriors[y == c]) for c in classes)
    return nuclear_norm(z @ fisher), own, np.log(variability)


def ncti_over_zoo_as_written(terms):
    def scaled(value, column):
        values = [row[column] for row in terms]
        return (value - min(values)) / (max(values) - min(values))

    return [scaled(row[0], 0) + scaled(row[1], 1) - scaled(row[2], 2) for row in terms]
