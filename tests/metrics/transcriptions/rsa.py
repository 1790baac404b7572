"""Eqs. 9-11 of arXiv:2102.00084, pair by pair."""

import numpy as np


def rsa_as_written(features, reference, weights=None):
    """Spearman of the two representation dissimilarity matrices; with weights, of their held ranks."""
    return spearman_as_written(dissimilarities(features), dissimilarities(reference), weights)


def dissimilarities(features):
    """1 - Pearson of each pair i < j over the feature dimensions (Eq. 9); a constant row correlates with none."""
    f, values = np.asarray(features, dtype=np.float64), []
    for i in range(len(f)):
        for j in range(i + 1, len(f)):
            constant = np.ptp(f[i]) == 0 or np.ptp(f[j]) == 0
            values.append(1.0 if constant else 1 - np.corrcoef(f[i], f[j])[0, 1])
    return np.array(values)


def average_ranks(values, equal_within=1e-11):
    """One more than the number of smaller values, and half of the other equal ones: by counting."""
    smaller = np.array([np.sum(values < v - equal_within) for v in values])
    equal = np.array([np.sum(np.abs(values - v) <= equal_within) for v in values])
    return smaller + (equal + 1) / 2


def spearman_as_written(one, two, weights=None):
    """Pearson of average ranks (Eq. 11); each pair counts w_i w_j times where there are weights."""
    a, b = average_ranks(one), average_ranks(two)
    n = round((1 + np.sqrt(1 + 8 * len(a))) / 2)
    w = np.ones(n) if weights is None else np.asarray(weights)
    p = np.array([w[i] * w[j] for i in range(n) for j in range(i + 1, n)])
    p = p / p.sum()
    a, b = a - (p * a).sum(), b - (p * b).sum()
    return float((p * a * b).sum() / np.sqrt((p * a**2).sum() * (p * b**2).sum()))
