"""OTCE (arXiv:2103.13843) without auxiliary tasks: -H(Y_t | Y_s), and W, under the optimal coupling."""

import math

import numpy as np

from tests.metrics.transcriptions.transport import plan_as_written


def otce_as_written(features, labels, source_features, source_labels, distance_weight=0.0):
    target, source = features.double().numpy(), source_features.double().numpy()
    y_t, y_s = labels.tolist(), source_labels.tolist()
    cost = np.array([[((s - t) ** 2).sum() for t in target] for s in source])
    plan = plan_as_written(cost, np.full(len(source), 1 / len(source)), np.full(len(target), 1 / len(target)))

    def joint(a, b):
        return sum(plan[i, j] for i in range(len(y_s)) for j in range(len(y_t)) if y_s[i] == a and y_t[j] == b)

    entropy = 0.0
    for a in set(y_s):
        p_a = sum(joint(a, b) for b in set(y_t))
        entropy -= sum(joint(a, b) * math.log(joint(a, b) / p_a) for b in set(y_t) if joint(a, b) > 0)
    return -entropy - distance_weight * (plan * cost).sum()
