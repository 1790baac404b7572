"""Ueno and Kondo (submission to ICLR 2020): S1 to S6 sum by sum, and C_{5,6} over the zoo."""

import math

import numpy as np


def s1_as_written(maps, labels):
    """Sum over classes of n_k times the squared distance of the class's mean map to the mean map."""
    maps, labels = np.asarray(maps, dtype=np.float64), np.asarray(labels)
    total = 0.0
    for k in set(labels.tolist()):
        own = maps[labels == k]
        total += len(own) * math.dist(maps.mean(axis=0).ravel(), own.mean(axis=0).ravel()) ** 2
    return total


def s2_as_written(maps, labels):
    """Sum over samples of the squared distance to the mean map of their class."""
    maps, labels = np.asarray(maps, dtype=np.float64), np.asarray(labels)
    return sum(
        math.dist(maps[labels == k].mean(axis=0).ravel(), one.ravel()) ** 2
        for one, k in zip(maps, labels, strict=True)
    )


def s3_as_written(maps, labels):
    """[S1 / (K - 1)] / [S2 / (N - K)]."""
    k, n = len(set(np.asarray(labels).tolist())), len(labels)
    return s1_as_written(maps, labels) / (k - 1) / (s2_as_written(maps, labels) / (n - k))


def s4_as_written(maps):
    """Sum over samples and pairs of channels of the absolute correlation over positions."""
    total = 0.0
    for image in np.asarray(maps, dtype=np.float64):
        for one in image:
            for other in image:
                total += abs(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    return total


def s5_as_written(maps):
    """Mean over samples of 1 - #zeros / #elements."""
    return np.mean([1 - np.sum(image == 0) / image.size for image in np.asarray(maps)])


def s6_as_written(maps):
    """Mean over samples of #high / #zeros; high is within 1 of the sample's maximum, and no zero counts as one."""
    return np.mean([np.sum(image >= image.max() - 1) / max(np.sum(image == 0), 1) for image in np.asarray(maps)])


def c56_as_written(s5, s6, a=0.574):
    """Each normalised to [-1, 1] over the comparison, signs flipped, (1 - a) S5 + a S6."""

    def normalised(values):
        return [-(2 * (value - min(values)) / (max(values) - min(values)) - 1) for value in values]

    return [(1 - a) * one + a * other for one, other in zip(normalised(s5), normalised(s6), strict=True)]
