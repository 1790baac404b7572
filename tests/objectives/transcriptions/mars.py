"""The projection of arXiv:2002.08253 on nested lists, one weight at a time."""

import math


def mars_as_written(matrix):
    return max(sum(abs(one) for one in row) for row in matrix)


def frobenius_as_written(matrix):
    return math.sqrt(sum(one**2 for row in matrix for one in row))


def projected_as_written(weight, start, radius, norm):
    """``weight`` and ``start`` as matrices of one row per output."""
    distance = norm([[w - w0 for w, w0 in zip(*rows, strict=True)] for rows in zip(weight, start, strict=True)])
    factor = 1 / max(1, distance / radius)
    return [[w0 + factor * (w - w0) for w, w0 in zip(*rows, strict=True)] for rows in zip(weight, start, strict=True)]
