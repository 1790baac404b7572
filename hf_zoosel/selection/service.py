"""How single source samples serve each target class, found in one pass over them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_zoosel.selection.groups import Groups
from hf_zoosel.selection.nearness import quantiles
from hf_zoosel.selection.pool import Pool
from hf_zoosel.selection.record import Server, TargetClass
from hf_zoosel.selection.strategies import rounded
from hf_zoosel.transport import cosine_cost

_N_SERVERS = 5
_PIECE_ELEMENTS = 2**21  # of the largest matrix at a time

PlanOf = Callable[[Tensor, Tensor], Tensor]  # distances (p, m) and masses (p,) of some samples -> their plan (p, m)


@dataclass(frozen=True, eq=False)
class Best:
    """The best few samples for each of m target classes, the best first, all ``(at most 5, m)``.

    Attributes:
        keys: What they are ordered by; ascending, samples that tie by row.
        rows: Their rows.
        distances: Their distances.
    """

    keys: Tensor
    rows: Tensor
    distances: Tensor

    @staticmethod
    def joined(parts: Sequence["Best"]) -> "Best":
        """The best of all."""
        columns = zip(*((one.keys, one.rows, one.distances) for one in parts), strict=True)
        keys, rows, distances = map(torch.cat, columns)
        by_row = rows.argsort(dim=0)
        order = by_row.gather(0, rounded(keys).gather(0, by_row).argsort(dim=0, stable=True)[:_N_SERVERS])
        return Best(keys.gather(0, order), rows.gather(0, order), distances.gather(0, order))


@dataclass(frozen=True, eq=False)
class Service:
    """What some samples, or all of them, do for each of m target classes.

    Attributes:
        least: Distance to the nearest sample, chosen or not, ``(m,)``.
        sums: Mass from all samples, from those chosen within the limit, from those chosen beyond it, and mass times
            distance of all, ``(4, m)``.
        nearest: The nearest of the chosen samples.
        servers: Those that give most mass; the keys are masses times -1.
    """

    least: Tensor
    sums: Tensor
    nearest: Best
    servers: Best

    @staticmethod
    def of(distances: Tensor, plan: Tensor, chosen: Tensor, rows: Tensor, limit: float) -> "Service":
        """Of p samples: distances and plan ``(p, m)``, which are chosen and their rows ``(p,)``."""
        near, given, at = distances[chosen], plan[chosen], rows[chosen, None].expand(-1, distances.shape[1])
        well = torch.where(near <= limit, given, 0).sum(dim=0)
        sums = [plan.sum(dim=0), well, given.sum(dim=0) - well, (plan * distances).sum(dim=0)]
        nearest, servers = Best.joined([Best(near, at, near)]), Best.joined([Best(-given, at, near)])
        return Service(distances.amin(dim=0), torch.stack(sums), nearest, servers)

    @staticmethod
    def joined(parts: Sequence["Service"]) -> "Service":
        """Of the samples of all parts."""
        return Service(
            torch.stack([one.least for one in parts]).amin(dim=0),
            torch.stack([one.sums for one in parts]).sum(dim=0),
            Best.joined([one.nearest for one in parts]),
            Best.joined([one.servers for one in parts]),
        )


def serve(
    pool: Pool, target: Groups, mass: Tensor, chosen: Tensor, *, plan_of: PlanOf, limit: float | None
) -> Service:
    """Look at every sample of all processes once.

    Args:
        pool: The samples.
        target: The target classes.
        mass: Mass of each of this process's samples, ``(n_local,)``.
        chosen: Which of them are chosen, ``(n_local,)`` bool.
        plan_of: Where the mass of some samples goes.
        limit: Distance within which a sample serves well.
    """
    parts: list[Service] = []
    size = max(1, _PIECE_ELEMENTS // max(target.means.shape))
    for at, block in pool.numbered():
        for start in range(0, len(block), size):
            piece = slice(at.start + start, min(at.start + start + size, at.stop))
            distances = cosine_cost(block[start : start + size], target.means)
            plan = plan_of(distances, mass[piece])
            part = Service.of(distances, plan, chosen[piece], pool.rows[piece], torch.inf if limit is None else limit)
            parts = [Service.joined([*parts, part])]
    return Service.joined([one for some in pool.gather(parts) for one in some])


def target_classes(
    service: Service, target: Groups, index: list[int], *, planned: bool, neighbours: Tensor, limit: float | None
) -> tuple[TargetClass, ...]:
    """Describe how each target class is served, in the target's own order, to which ``index`` leads."""
    distance, rank = service.nearest.distances[0], quantiles(service.nearest.distances[0], neighbours)
    received = service.sums[0].clamp_min(1e-300)  # 0 if nothing came
    well, badly = service.sums[1:3] / received
    best = service.servers if planned else service.nearest
    shares = -best.keys / received if planned else None
    judged = planned and limit is not None
    described = [
        TargetClass(
            name=target.names[j],
            index=index[j],
            count=int(target.counts[j]),
            nearest=row_name(int(service.nearest.rows[0, j])),
            distance=distance[j].item(),
            quantile=rank[j],
            least_distance=service.least[j].item(),
            share_well=well[j].item() if judged else None,
            share_badly=badly[j].item() if judged else None,
            served_by=_servers(best, None if shares is None else shares[:, j].tolist(), j),
        )
        for j in range(len(target))
    ]
    return tuple(sorted(described, key=lambda one: one.index))


def row_name(row: int) -> str:
    """What a sample is called."""
    return f"row {row}"


def _servers(best: Best, shares: list[float] | None, j: int) -> tuple[Server, ...]:
    rows, distances = best.rows[:, j].tolist(), best.distances[:, j].tolist()
    return tuple(
        Server(row_name(row), row, None if shares is None else shares[i], distances[i])
        for i, row in enumerate(rows)
        if shares is None or shares[i] != 0
    )
