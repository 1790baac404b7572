"""The quota problem as the linear programme it is."""

import numpy as np
from scipy.optimize import linprog


def capacity_cost_as_written(cost, b, k):
    """Least <cost, P> over P >= 0 with P^T 1 = b and P 1 <= sum(b) / k."""
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    return linprog(cost.ravel(), A_ub=rows, b_ub=np.full(n, b.sum() / k), A_eq=columns, b_eq=b, method="highs").fun


def balanced_plan_as_written(cost, a, b):
    """The plan (n, m) >= 0 of least <cost, P> with row sums ``a`` and column sums ``b``."""
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    found = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]), method="highs")
    return found.x.reshape(n, m)
