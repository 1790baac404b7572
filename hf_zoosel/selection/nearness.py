"""Is anything in the source near the target? Judged by how near the source's own classes are to each other."""

import torch
from torch import Tensor

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
    lengths = torch.linalg.vector_norm(means, dim=1, dtype=torch.float64)
    asked = torch.linspace(0, n - 1, min(n, _MOST), dtype=torch.float64).round().long()
    units = means[asked] / lengths[asked, None]
    cosines = (units.to(means.dtype) @ means.T).double() / lengths  # float32 means resolve distances of 1e-7
    cosines[torch.arange(len(asked)), asked] = -1
    return (1 - cosines.amax(dim=1)).clamp_min(0).sort().values


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
