"""Is anything in the source near the target? Judged by how near the source's own classes are to each other."""

import torch
from torch import Tensor

from hf_zoosel.selection.pool import Pool

_LEVEL = 0.95
_MOST = 256  # source groups whose neighbours are looked for: places the quantile to about 0.014
_SAME = 1e-6  # relative distance of two means that are one


def neighbour_distances(means: Tensor) -> Tensor:
    """Cosine distance of source groups to their nearest other source group.

    Args:
        means: Means of the source groups, shape ``(n, d)``.

    Returns:
        Distances in rising order, shape ``(min(n, 256),)`` float64; of more than 256 groups, 256 evenly spaced ones
        are asked. Empty for a single group.
    """
    n = len(means)
    if n < 2:
        return torch.empty(0, dtype=torch.float64)
    return _to_nearest(Pool.of(means), _spread(n))


def sample_neighbours(pool: Pool) -> Tensor:
    """Cosine distances of source samples, 256 evenly spaced ones, to their nearest other sample of any process.

    Returns:
        Distances in rising order, shape ``(min(n, 256),)`` float64; empty for a single sample.
    """
    if len(pool) < 2:
        return torch.empty(0, dtype=torch.float64)
    return _to_nearest(pool, _spread(len(pool)))


def _to_nearest(pool: Pool, asked: Tensor) -> Tensor:
    """Return the distances, in rising order, from the samples at some places to the nearest others.

    Which are nearest is found in float32, their distances are those of float64.
    """
    units = _units(pool.at(asked))
    cosines, places = torch.full((len(asked),), -1.0, dtype=torch.float64), pool.places
    for at, block in pool.numbered():
        lengths = torch.linalg.vector_norm(block, dim=1, dtype=torch.float64)
        similarity = (units.float() @ block.float().T).div_(lengths)
        own = torch.isin(asked, places[at]).nonzero()[:, 0]
        similarity[own, torch.searchsorted(places[at], asked[own])] = -2
        highest, nearest = similarity.max(dim=1)
        exact = (units * _units(block[nearest])).sum(dim=1)
        cosines = torch.maximum(cosines, exact.where(highest > -2, -1))
    best = torch.stack(pool.gather(cosines)).amax(dim=0)
    return (1 - best).clamp_min(0).sort().values


def _units(rows: Tensor) -> Tensor:
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)


def _spread(n: int) -> Tensor:
    return torch.linspace(0, n - 1, min(n, _MOST), dtype=torch.float64).round().long()


def near_limit(neighbours: Tensor) -> float | None:
    """Return the distance within which a target group counts as near; None where the source is a single group.

    It is the 95 % quantile of the source groups' distances to their nearest neighbours. Were a target group one more
    group of the source, its distance to the nearest would exceed the limit with a chance of 5 % (the two are
    exchangeable, as in a conformal test), whatever the checkpoint and however its cosines are distributed.
    """
    return torch.quantile(neighbours, _LEVEL).item() if len(neighbours) else None


def quantiles(distances: Tensor, neighbours: Tensor) -> list[float | None]:
    """Return the share of source groups that are nearer to a neighbour than each distance, in [0, 1]."""
    if not len(neighbours):
        return [None] * len(distances)
    return (torch.searchsorted(neighbours, distances.contiguous()).double() / len(neighbours)).tolist()


def count_shared(source: Tensor, target: Tensor, nearest: Tensor) -> int:
    """Count the target means ``(m, d)`` that coincide with their nearest source mean; ``nearest`` is ``(m,)``."""
    partners = source[nearest].double()
    return int(((target.double() - partners).norm(dim=1) <= _SAME * partners.norm(dim=1)).sum())
