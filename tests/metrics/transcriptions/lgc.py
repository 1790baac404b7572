"""Eq. 8 of arXiv:2102.00084 on explicit gradients, each the sum over positions of signal (x) input."""

import numpy as np


def gradients_as_written(inputs, signals):
    inputs, signals = np.asarray(inputs, dtype=np.float64), np.asarray(signals, dtype=np.float64)
    rows = []
    for patches, deltas in zip(inputs, signals, strict=True):
        gradient = np.zeros((deltas.shape[1], patches.shape[1]))
        for patch, delta in zip(patches, deltas, strict=True):
            gradient += np.outer(delta, patch)
        rows.append(gradient.ravel())
    return np.array(rows)


def lgc_as_written(gradients, labels):
    g, y = np.asarray(gradients, dtype=np.float64), np.asarray(labels)
    n = len(g)
    theta = np.array([[g[i] @ g[j] for j in range(n)] for i in range(n)])
    kernel = np.array([[1.0 if y[i] == y[j] else -1.0 for j in range(n)] for i in range(n)])
    theta, kernel = theta - theta.mean(), kernel - kernel.mean()
    return float((theta * kernel).sum() / np.sqrt((theta**2).sum()) / np.sqrt((kernel**2).sum()))
