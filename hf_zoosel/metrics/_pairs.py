"""Ranks of the dissimilarities of all pairs of samples, and their correlation with a second value of each pair.

The n (n - 1) / 2 pairs (i, j), i < j, stand in one vector, row after row: (0, 1), (0, 2), ..., (1, 2), ...
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_zoosel.metrics._blocks import row_slices
from hf_zoosel.metrics._triangles import add_gram

Pairs = NDArray[np.float64]

_TILE_ROWS = 1024  # correlations held at once, beside the vector of all: 8 MB
_TIE = 1e-13  # above the rounding of a correlation of features, so equal ones tie as they should
_TINY = torch.finfo(torch.float64).tiny
_BUCKET_PAIRS, _MAX_BUCKETS = 2**19, 24
_SAMPLE_PAIRS = 2**16


def pair_ranks(features: Tensor, centre: Tensor | None = None, scale: Tensor | None = None) -> Pairs:
    """Return the rank of ``1 - Pearson`` over the feature dimensions for each pair, ``(n (n - 1) / 2,)``.

    Equal dissimilarities share the mean of their ranks, which start at 1. A row without variance over its
    dimensions has no correlation: it counts as uncorrelated with all others, a dissimilarity of 1.
    Takes 8 bytes a pair and about 50 MB.

    Args:
        features: Rows to compare, shape ``(n, d)``.
        centre: Taken from each row first, shape ``(d,)``.
        scale: Multiplies each row less ``centre``, shape ``(d,)``.
    """
    pairs = _dissimilarities(features, centre, scale)
    _rank_in_place(pairs)
    return pairs


def pair_rows(n: int) -> Iterator[tuple[int, slice]]:
    """Yield each ``i`` and where its pairs ``(i, i + 1), ..., (i, n - 1)`` stand."""
    start = 0
    for i in range(n - 1):
        yield i, slice(start, start + n - 1 - i)
        start += n - 1 - i


def pair_products(n: int, ranks: Pairs, other: Callable[[int, slice], Pairs]) -> Pairs:
    """Return for each sample the sums over its pairs of ab, aa and bb, shape ``(3, n)``.

    Here a is a pair's rank less the mean rank, and ``other(i, pairs)`` returns b, less its mean, for ``pairs`` of i.
    """
    mean = (len(ranks) + 1) / 2  # of ranks with ties as well
    sums = np.zeros((3, n))
    for i, pairs in pair_rows(n):
        a, b = ranks[pairs] - mean, other(i, pairs)
        for total, product in zip(sums, (a * b, a * a, b * b), strict=True):
            total[i] += product.sum()
            total[i + 1 :] += product
    return sums


def pearson_with_influence(sums: Pairs) -> tuple[float, Pairs]:
    """Return the Pearson correlation over pairs, from ``pair_products``, and each sample's influence on it, ``(n,)``.

    The derivative at w = 1 of the correlation over pairs weighted w_i w_j, values held. The means move with w too,
    but deviations from a mean sum to zero, so that changes nothing to first order.
    """
    ab, aa, bb = sums.sum(axis=1) / 2  # each pair is in two rows
    norm = np.sqrt(aa) * np.sqrt(bb)
    score = max(-1.0, min(1.0, float(ab / norm)))
    return score, sums.shape[1] * (sums[0] / norm - score / 2 * (sums[1] / aa + sums[2] / bb))


def _dissimilarities(features: Tensor, centre: Tensor | None, scale: Tensor | None) -> Pairs:
    """Return -2 - Pearson of each pair: in the order of 1 - Pearson, and below zero."""
    n = len(features)
    pairs = np.empty(n * (n - 1) // 2)
    for i in row_slices(features, at_most=_TILE_ROWS):
        left = _unit_rows(features[i], centre, scale)
        for j in row_slices(features[i.start :], at_most=_TILE_ROWS):
            first = i.start + j.start
            if j.start == 0:  # only what is above the diagonal counts
                tile = left.new_zeros(len(left), len(left))
                add_gram(tile, left.T)
            else:
                tile = left @ _unit_rows(features[first : i.start + j.stop], centre, scale).T
            tile = tile.neg_().sub_(2).cpu()
            for row, values in enumerate(tile.numpy(), start=i.start):
                own = values[max(0, row + 1 - first) :]  # right of the diagonal
                start = row * (2 * n - row - 1) // 2 + max(0, first - row - 1)
                pairs[start : start + len(own)] = own
    return pairs


def _unit_rows(block: Tensor, centre: Tensor | None, scale: Tensor | None) -> Tensor:
    """Return rows in float64, less their mean and of length 1, so that their products are Pearson correlations."""
    block = block.to(torch.float64, copy=True)
    if centre is not None:
        block.sub_(centre)
    if scale is not None:
        block.mul_(scale)
    block.sub_(block[:, :1].clone())  # a constant row becomes exactly zero, and stays so
    block.sub_(block.mean(dim=1, keepdim=True))
    return block.div_(torch.linalg.vector_norm(block, dim=1, keepdim=True).clamp_min(_TINY))


def _rank_in_place(values: Pairs) -> None:
    """Replace each value, all below zero, by its rank; values that follow each other within ``_TIE`` are equal.

    Bucket by bucket, lowest first: sorting the order of all at once would take twice the memory and longer.
    What is still below zero has no rank yet.
    """
    done = 0
    for border in _bucket_borders(values):
        members = np.flatnonzero(values < border)
        bucket = values[members]
        order = np.argsort(bucket)
        starts = np.flatnonzero(np.diff(bucket[order], prepend=-np.inf) > _TIE)
        sizes = np.diff(starts, append=len(order))
        if border < 0:  # the last of equal values may lie beyond the border: those wait for the next bucket
            starts, sizes = starts[:-1], sizes[:-1]
        ranked = int(sizes.sum())
        bucket[order[:ranked]] = np.repeat(done + starts + (sizes + 1) / 2, sizes)
        values[members] = bucket
        done += ranked


def _bucket_borders(values: Pairs) -> Pairs:
    """Return ascending borders that share the values out about evenly; the last one is 0."""
    buckets = min(_MAX_BUCKETS, 1 + len(values) // _BUCKET_PAIRS)
    sample = values[:: 1 + len(values) // _SAMPLE_PAIRS]
    return np.append(np.quantile(sample, np.arange(1, buckets) / buckets), 0.0)
