"""Clusters in the place of classes where a source or a target has no labels: k-means by scikit-learn."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_zoosel.selection.groups import Groups
from hf_zoosel.selection.pool import Pool

_MINI_BATCH_FROM = 20_000  # rows to fit on from which mini-batches are used
_BATCH = 4096  # rows


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of samples.

    Attributes:
        groups: Their means, in the features' own scale, sizes and names, the largest first.
        labels: Cluster of each sample of this process, shape ``(n_samples,)`` int64.
    """

    groups: Groups
    labels: Tensor


def cluster(
    features: Tensor | Callable[[], Iterable[Tensor]] | Pool,
    n_clusters: int,
    *,
    normalize: bool = True,
    rows_per_cluster: int = 64,
    seed: int = 0,
) -> Clusters:
    """Group samples by k-means.

    The centres are fitted on at most ``n_clusters * rows_per_cluster`` rows, then every row is given to the nearest
    of them. Where that is all of the rows they are sorted first, so that the clusters do not depend on their order;
    of more rows, those to fit on are drawn by row number and seed, and another order gives other clusters.

    Of a pool on several processes the rows to fit on are gathered, the main process fits and the others are given
    its centres; then each gives its own rows to them, and sums are added up. The clusters are the same on any number
    of processes, means up to rounding.

    Args:
        features: Shape ``(n_samples, n_features)``, floats; or a function that yields such blocks anew at each call,
            for features that do not fit into memory; or a pool of them. They are read four times at most.
        n_clusters: Clusters wanted, 1 to n_samples. Fewer come back where rows coincide.
        normalize: Cluster directions: rows are divided by their length, as the cosine cost ignores it.
        rows_per_cluster: Rows to fit on, for each cluster; at least 1.
        seed: Seed of the fit and of the draw of rows.

    Returns:
        The clusters; each has a sample.

    Raises:
        ValueError: If ``n_clusters`` is out of range, or rows are not finite or, with ``normalize``, all zero.

    Reference:
        Lloyd's k-means with k-means++ starts, or from 20,000 rows to fit on Sculley, "Web-scale k-means clustering",
        WWW 2010. Liu et al., https://arxiv.org/abs/2111.12292, take K = 2,000 for ImageNet.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 3.0], [9.0, 0.1], [0.1, 1.0], [0.0, 1.0]])
        >>> cluster(rows, 2).labels.tolist()
        [1, 0, 1, 0, 0]
    """
    if rows_per_cluster < 1:
        raise ValueError(f"`rows_per_cluster` must be at least 1, got {rows_per_cluster}.")
    pool = features if isinstance(features, Pool) else Pool.of(features)
    if not 1 <= n_clusters <= len(pool):
        raise ValueError(f"`n_clusters` must be from 1 to the {len(pool):,} samples, got {n_clusters:,}.")
    pool.check(lengths=normalize, remedy=", or pass `normalize=False`")
    rows = _rows_to_fit(pool, n_clusters * rows_per_cluster, normalize=normalize, seed=seed)
    centers = pool.gather(_fitted(rows, n_clusters, seed) if pool.is_main else None)[0]
    return _assigned(pool, centers, normalize=normalize)


def _prepared(block: Tensor, normalize: bool) -> NDArray[np.float64]:
    """Return rows in float64, of length 1 where asked."""
    rows = block.double()
    return (rows / rows.norm(dim=1, keepdim=True) if normalize else rows).numpy()


def _rows_to_fit(pool: Pool, most: int, *, normalize: bool, seed: int) -> NDArray[np.float32]:
    """Return the rows that the centres are fitted on, in an order of their own."""
    n, rng = len(pool), np.random.default_rng(seed)
    wanted = np.sort(rng.choice(n, most, replace=False)) if n > most else np.arange(n)
    parts, keys = [], []
    for block in pool.at(torch.from_numpy(wanted)).split(_BATCH):
        rows = _prepared(block, normalize)
        parts.append(rows.astype(np.float32))
        keys.append((rows * np.random.default_rng(0).normal(size=rows.shape[1])).sum(axis=1))
    return np.concatenate(parts)[np.argsort(np.concatenate(keys), kind="stable")]


def _fitted(rows: NDArray[np.float32], n_clusters: int, seed: int) -> NDArray[np.float64]:
    """Return the centres, shape ``(n_clusters, d)``; some are alike where there are fewer distinct rows."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(rows) < _MINI_BATCH_FROM:
        model = KMeans(n_clusters, random_state=seed, n_init=4)
    else:
        model = MiniBatchKMeans(n_clusters, random_state=seed, n_init=3, batch_size=max(_BATCH, 2 * n_clusters))
    with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):  # threads would add up in any order
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: documented
        return model.fit(rows).cluster_centers_.astype(np.float64)


def _assigned(pool: Pool, centers: NDArray[np.float64], *, normalize: bool) -> Clusters:
    """Give every row to its nearest centre; average and number what comes of it."""
    label, sums = torch.zeros(len(pool.rows), dtype=torch.int64), torch.zeros(centers.shape, dtype=torch.float64)
    half_squares = (centers**2).sum(axis=1) / 2
    for at, block in pool.numbered():
        label[at] = torch.from_numpy((_prepared(block, normalize) @ centers.T - half_squares).argmax(axis=1))
        sums.index_add_(0, label[at], block.double())
    sums, counts = pool.total(sums), pool.total(label.bincount(minlength=len(centers)))
    order = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]
    places = torch.empty_like(counts)
    places[order] = torch.arange(len(order))
    names = tuple(f"cluster {i}" for i in range(len(order)))
    return Clusters(Groups(sums[order] / counts[order, None], counts[order], names), places[label])
