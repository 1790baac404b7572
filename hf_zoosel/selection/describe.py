"""What a choice means: each source class beside its nearest target class, each target class beside who serves it."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hf_zoosel.selection.groups import Groups
from hf_zoosel.selection.nearness import count_shared, quantiles
from hf_zoosel.selection.record import Server, SourceClass, TargetClass
from hf_zoosel.selection.strategies import Chosen

_NOTHING_NEAR = 0.9  # share of target classes beyond the limit, of which 5 % would be by chance
_N_SERVERS = 5
NOT_CONVERGED = "The solver did not converge: see `details`. Raise `max_iterations` or `reg`."


@dataclass(frozen=True, eq=False)
class Choice:
    """A strategy's answer with all that is needed to describe it.

    Attributes:
        source: Source groups in canonical order, n of them.
        target: Target groups in canonical order, m of them.
        chosen: The strategy's answer.
        k: How many source groups are chosen.
        distances: Cosine distances, shape ``(n, m)``.
        neighbours: See ``neighbour_distances``.
        limit: See ``near_limit``.
    """

    source: Groups
    target: Groups
    chosen: Chosen
    k: int
    distances: Tensor
    neighbours: Tensor
    limit: float | None

    @property
    def picked(self) -> Tensor:
        """Positions of the chosen source groups, shape ``(k,)``."""
        return self.chosen.order[: self.k]

    @cached_property
    def least(self) -> tuple[Tensor, Tensor]:
        """Distance of each target group to the nearest source group, and the position of that one, both ``(m,)``."""
        values, indices = self.distances.min(dim=0)
        return values, indices

    @cached_property
    def received(self) -> Tensor | None:
        """Share of each target group's mass from each chosen group, shape ``(k, m)``; None without a plan."""
        plan = self.chosen.coverage
        return None if plan is None else plan[self.picked] / plan.sum(dim=0).clamp_min(1e-300)  # 0 if nothing came


def source_classes(choice: Choice, index: list[int]) -> tuple[SourceClass, ...]:
    """Describe all source groups in order of importance; ``index`` leads from canonical order to the source's own."""
    mass = choice.chosen.mass.tolist()
    share = (choice.chosen.mass / choice.chosen.mass.sum()).tolist()
    distance, nearest = (values.tolist() for values in choice.distances.min(dim=1))
    counts, names, target = choice.source.counts.tolist(), choice.source.names, choice.target.names
    return tuple(
        SourceClass(names[i], index[i], mass[i], share[i], counts[i], target[nearest[i]], distance[i])
        for i in choice.chosen.order.tolist()
    )


def target_classes(choice: Choice, source_index: list[int], target_index: list[int]) -> tuple[TargetClass, ...]:
    """Describe how each target group is served, in the target's own order."""
    near = choice.distances[choice.picked]  # (k, m)
    distance, nearest = near.min(dim=0)
    rank = quantiles(distance, choice.neighbours)
    least = choice.least[0].tolist()
    well, badly = _shares(choice, near)
    servers = _servers(choice, near, source_index)
    names = [choice.source.names[i] for i in choice.picked.tolist()]
    described = [
        TargetClass(
            name=choice.target.names[j],
            index=target_index[j],
            count=int(choice.target.counts[j]),
            nearest=names[int(nearest[j])],
            distance=distance[j].item(),
            quantile=rank[j],
            least_distance=least[j],
            share_well=well[j],
            share_badly=badly[j],
            served_by=servers[j],
        )
        for j in range(len(choice.target))
    ]
    return tuple(sorted(described, key=lambda one: one.index))


def n_effective(mass: Tensor) -> float:
    """Return the inverse Simpson index of the masses."""
    mass = mass / mass.max()
    return (mass.sum().square() / mass.square().sum()).item()


def transport_cost(chosen: Chosen) -> float | None:
    """Return the mean cost of a unit of mass in the ground cost; None without a plan."""
    if chosen.coverage is None:
        return None
    return (chosen.coverage.flatten().dot(chosen.cost.flatten()) / chosen.mass.sum()).item()


def nothing_near(least: Tensor, limit: float | None, of: tuple[str, str] = ("class", "classes")) -> str | None:
    """Say that nothing in the source is near the target, if so.

    Args:
        least: Distance of each target class to the nearest source class or sample, ``(m,)``.
        limit: See ``near_limit``.
        of: What the source consists of, one and many.
    """
    if limit is None:
        return None
    n_far, m = int((least > limit).sum()), len(least)
    if n_far < _NOTHING_NEAR * m:
        return None
    return (
        f"Nothing in the source is near the target: {n_far:,} of {m:,} target classes are further from every source "
        f"{of[0]} (median distance {least.median():.3g}) than 95 % of source {of[1]} are from their nearest neighbour "
        f"({limit:.3g}). Mixing may hurt: compare with training on the target alone."
    )


def remarks(choice: Choice) -> list[str]:
    """Say what else a person should know."""
    notes = []
    m = len(choice.target)
    shared = count_shared(choice.source.means, choice.target.means, choice.least[1])
    if shared == m:
        notes.append("Every target class coincides with a source class: target and source look like the same data.")
    elif shared:
        notes.append(f"{shared:,} of {m:,} target classes coincide with a source class: some data are in both.")
    if choice.received is not None and n_effective(choice.chosen.mass) < choice.k / 2:
        notes.append(
            f"The mass sits on {n_effective(choice.chosen.mass):.1f} source classes in effect, of {choice.k:,}: "
            "tiny masses decide the last ranks. Choose fewer, a larger scale, or the method 'capacity'."
        )
    if choice.received is not None and (unserved := int((choice.received.sum(dim=0) == 0).sum())):
        notes.append(f"{unserved:,} of {m:,} target classes receive nothing from the chosen classes. Choose more.")
    if choice.chosen.details.get("converged") is False:
        notes.append(NOT_CONVERGED)
    return notes


def _shares(choice: Choice, near: Tensor) -> tuple[list[float | None], list[float | None]]:
    """Return the shares of mass from chosen groups within the limit and beyond it, one per target group."""
    received = choice.received
    if received is None or choice.limit is None:
        nothing: list[float | None] = [None] * len(choice.target)
        return nothing, nothing
    well = torch.where(near <= choice.limit, received, 0).sum(dim=0)
    badly = torch.where(near <= choice.limit, 0, received).sum(dim=0)
    return well.tolist(), badly.tolist()


def _servers(choice: Choice, near: Tensor, index: list[int]) -> list[tuple[Server, ...]]:
    """Return the chosen groups that serve each target group most; without a plan, the nearest."""
    received, picked, names = choice.received, choice.picked.tolist(), choice.source.names
    order = (near if received is None else -received).argsort(dim=0, stable=True)[:_N_SERVERS]  # (at most 5, m)
    distances = near.gather(0, order).T.tolist()
    shares = None if received is None else received.gather(0, order).T.tolist()
    return [
        tuple(
            Server(
                names[picked[i]], index[picked[i]], None if shares is None else shares[j][place], distances[j][place]
            )
            for place, i in enumerate(best)
            if shares is None or shares[j][place] != 0
        )
        for j, best in enumerate(order.T.tolist())
    ]
