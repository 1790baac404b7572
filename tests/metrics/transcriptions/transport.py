"""The transport problem as the linear programme it is."""

import numpy as np
from scipy.optimize import linprog


def plan_as_written(cost, a, b):
    """The plan (n, m) >= 0 of least <cost, plan> with row sums ``a`` and column sums ``b``."""
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    found = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]), method="highs")
    return found.x.reshape(n, m)
