"""METHODS B3: r_i = sum_j b_j softmax_i(-M_ij / eps)."""

import numpy as np


def semi_relaxed_plan_as_written(cost, b, eps):
    n, m = cost.shape
    plan = np.zeros((n, m))
    for j in range(m):
        weights = [np.exp(-(cost[i, j] - cost[:, j].min()) / eps) for i in range(n)]
        for i in range(n):
            plan[i, j] = b[j] * weights[i] / sum(weights)
    return plan
