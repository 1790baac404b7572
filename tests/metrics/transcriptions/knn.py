"""Leave-one-out 1-NN by measuring every distance; the nearest share the vote."""

import numpy as np


def knn_as_written(features, labels, distance="euclidean"):
    """Distances that differ by rounding only are equal."""
    f, y, right = np.asarray(features, dtype=np.float64), np.asarray(labels), []
    if distance == "cosine":
        f = f / np.linalg.norm(f, axis=1, keepdims=True)
    for i in range(len(f)):
        to_others = np.linalg.norm(f - f[i], axis=1)
        to_others[i] = np.inf
        nearest = np.isclose(to_others, to_others.min(), rtol=1e-9, atol=1e-9)
        right.append(np.mean(y[nearest] == y[i]))
    return np.mean(right)
