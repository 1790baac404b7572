"""Generalised Sinkhorn as METHODS B2 states the authors' script, and the conditions that its limit fulfils."""

import numpy as np


def unbalanced_plan_as_written(source, target, *, p_m=0.1, eps=1.0, lam1=1.0, lam2=100.0, iterations=1000, stop=1e-6):
    """The plan (n, m) from class means ``(n, d)`` and ``(m, d)``, marginals of ones."""
    source = np.stack([row / np.sqrt((row * row).sum()) for row in np.asarray(source, np.float64)])
    target = np.stack([row / np.sqrt((row * row).sum()) for row in np.asarray(target, np.float64)])
    cost = np.array([[1 - (s * t).sum() for t in target] for s in source]) / p_m
    return scaled_as_written(cost, eps=eps, lam1=lam1, lam2=lam2, iterations=iterations, stop=stop)


def scaled_as_written(cost, *, eps=1.0, lam1=1.0, lam2=100.0, iterations=1000, stop=1e-6):
    n, m = cost.shape
    a, b, u, v, kernel = np.ones(n), np.ones(m), np.ones(n), np.ones(m), np.exp(-cost / eps)
    for _ in range(iterations):
        before_u, before_v = u, v
        u = (a / kernel.dot(v)) ** (lam1 / (lam1 + eps))
        v = (b / kernel.T.dot(u)) ** (lam2 / (lam2 + eps))
        change = [abs(new - old).max() / max(new.max(), old.max(), 1) for new, old in ((u, before_u), (v, before_v))]
        if sum(change) / 2 < stop:
            break
    return np.array([[u[i] * kernel[i, j] * v[j] for j in range(m)] for i in range(n)])


def objective_as_written(plan, cost, a, b, *, eps, lam1, lam2):
    """<cost, P> + eps sum P (ln P - 1) + lam1 KL(P 1 | a) + lam2 KL(P^T 1 | b)."""

    def divergence(p, q):
        return sum(x * np.log(x / y) - x + y for x, y in zip(p, q, strict=True) if x > 0) + q[p == 0].sum()

    entropy = sum(x * (np.log(x) - 1) for x in plan.ravel() if x > 0)
    total = (plan * cost).sum() + eps * entropy
    return total + lam1 * divergence(plan.sum(axis=1), a) + lam2 * divergence(plan.sum(axis=0), b)
