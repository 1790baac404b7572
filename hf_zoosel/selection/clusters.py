"""Clusters in the place of classes where a source or a target has no labels: k-means by scikit-learn."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_zoosel.selection.groups import Groups

_MINI_BATCH_FROM = 20_000  # rows to fit on from which mini-batches are used
_BATCH, _BLOCK = 4096, 8192  # rows


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of samples.

    Attributes:
        groups: Their means, in the features' own scale, sizes and names, the largest first.
        labels: Cluster of each sample, shape ``(n_samples,)`` int64.
    """

    groups: Groups
    labels: Tensor


def cluster(
    features: Tensor | Callable[[], Iterable[Tensor]],
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

    Args:
        features: Shape ``(n_samples, n_features)``, floats; or a function that yields such blocks anew at each call,
            for features that do not fit into memory. It is called three times.
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
    blocks = _in_blocks(features) if isinstance(features, Tensor) else features
    n = sum(len(block) for block in blocks())
    if not 1 <= n_clusters <= n:
        raise ValueError(f"`n_clusters` must be from 1 to the {n:,} samples, got {n_clusters:,}.")
    rows = _rows_to_fit(blocks, n, n_clusters * rows_per_cluster, normalize=normalize, seed=seed)
    centers = _fitted(rows, n_clusters, seed)
    return _assigned(blocks, centers, normalize=normalize)


def _in_blocks(features: Tensor) -> Callable[[], Iterable[Tensor]]:
    return lambda: features.detach().split(_BLOCK)


def _prepared(block: Tensor, normalize: bool) -> NDArray[np.float64]:
    """Return checked rows in float64, of length 1 where asked."""
    rows = block.detach().double().cpu()
    if not rows.isfinite().all():
        raise ValueError("`features` must be finite, got NaN or infinity. Check the checkpoint and its preprocessing.")
    if not normalize:
        return rows.numpy()
    length = rows.norm(dim=1, keepdim=True)
    if not length.all():
        raise ValueError(
            f"`features` must have no row of zeros, got {int((length == 0).sum())}. Leave them out, or pass "
            "`normalize=False`."
        )
    return (rows / length).numpy()


def _rows_to_fit(
    blocks: Callable[[], Iterable[Tensor]], n: int, most: int, *, normalize: bool, seed: int
) -> NDArray[np.float32]:
    """Return the rows that the centres are fitted on, in an order of their own."""
    rng = np.random.default_rng(seed)
    wanted = np.sort(rng.choice(n, most, replace=False)) if n > most else np.arange(n)
    parts, keys, first = [], [], 0
    for block in blocks():
        inside = wanted[(wanted >= first) & (wanted < first + len(block))] - first
        rows = _prepared(block[torch.from_numpy(inside)], normalize)
        parts.append(rows.astype(np.float32))
        keys.append((rows * np.random.default_rng(0).normal(size=rows.shape[1])).sum(axis=1))
        first += len(block)
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


def _assigned(blocks: Callable[[], Iterable[Tensor]], centers: NDArray[np.float64], *, normalize: bool) -> Clusters:
    """Give every row to its nearest centre; average and number what comes of it."""
    labels, sums = [], torch.zeros(centers.shape, dtype=torch.float64)
    half_squares = (centers**2).sum(axis=1) / 2
    for block in blocks():
        nearest = torch.from_numpy((_prepared(block, normalize) @ centers.T - half_squares).argmax(axis=1))
        sums.index_add_(0, nearest, block.detach().double().cpu())
        labels.append(nearest)
    label = torch.cat(labels)
    counts = label.bincount(minlength=len(centers))
    order = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]
    places = torch.empty_like(counts)
    places[order] = torch.arange(len(order))
    names = tuple(f"cluster {i}" for i in range(len(order)))
    return Clusters(Groups(sums[order] / counts[order, None], counts[order], names), places[label])
