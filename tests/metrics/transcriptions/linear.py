"""Ridge regression on one-hot labels, refitted without each sample for every strength."""

import numpy as np

STRENGTHS = [10.0**power for power in range(3, -7, -1)]


def penalty_as_written(f, strength):
    """The strength in units of the mean non-zero eigenvalue of the centred scatter."""
    values = np.linalg.svd(f - f.mean(axis=0), compute_uv=False) ** 2
    return strength * values[values > 1e-12 * values.max(initial=0)].mean()


def predict_as_written(f, targets, lam, row):
    """The prediction for a row by ridge regression with an intercept that is not penalised."""
    centre, prior = f.mean(axis=0), targets.mean(axis=0)
    g = f - centre
    weights = g.T @ np.linalg.solve(g @ g.T + lam * np.eye(len(g)), targets - prior)
    return prior + (row - centre) @ weights


def linear_as_written(features, labels, strengths=STRENGTHS):
    """The strength of least squared error, of equal ones the first; the largest predictions share the vote."""
    f, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    targets = (y[:, None] == np.unique(y)).astype(float)
    results = []
    for strength in strengths:
        lam, answers = penalty_as_written(f, strength), []
        for i in range(len(f)):
            answers.append(predict_as_written(np.delete(f, i, 0), np.delete(targets, i, 0), lam, f[i]))
        error = ((targets - answers) ** 2).sum()
        largest = np.isclose(answers, np.max(answers, axis=1, keepdims=True), rtol=0, atol=1e-9)
        right = (largest & (targets == 1)).sum(axis=1) / largest.sum(axis=1)
        results.append((error, right.mean()))
    return min(results, key=lambda result: result[0])[1]
