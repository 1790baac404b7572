"""The table of strategies: which source groups to train with. To add one: write its function, then one line below.

Every function takes the groups in canonical order (``Groups.canonical_order``), so that ties, which go to the first,
go by name. Source groups are rows (n), target groups columns (m).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from hf_zoosel.ranking.settings import read_settings
from hf_zoosel.selection.groups import Groups
from hf_zoosel.selection.options import (
    CapacityOptions,
    Cost,
    CostOptions,
    MeanDistanceOptions,
    Options,
    SemiRelaxedOptions,
    UotOptions,
    read_options,
)
from hf_zoosel.transport import Plan, capacity_plan, cosine_cost, euclidean_cost, semi_relaxed_plan, unbalanced_plan

_DIGITS = 36  # binary digits of a score that decide an order: those below are rounding, and the name decides


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a strategy answers.

    Attributes:
        mass: Importance of each source group, shape ``(n,)`` float64, at least 0. Strategies without a plan give
            1/k to each chosen group.
        order: Positions of all source groups by importance, shape ``(n,)`` int64; the first k are chosen.
        cost: The ground cost, shape ``(n, m)``.
        coverage: Mass from each source group to each target group, shape ``(n, m)``; None without a plan.
        details: What the solver says of itself.
    """

    mass: Tensor
    order: Tensor
    cost: Tensor
    coverage: Tensor | None = None
    details: Mapping[str, int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy:
    """A way to choose source groups.

    Attributes:
        name: The name a person asks for.
        fn: ``fn(source, target, *, k, options, seed) -> Chosen``.
        options: The record of its options and their defaults.
        description: One line.
        reference: Where it is from.
        needs_k: Whether the number of groups must be given; ``all`` has none to give.
    """

    name: str
    fn: Callable[..., Chosen]
    options: type[Options]
    description: str
    reference: str
    needs_k: bool = True


def views(source: Groups, target: Groups, *, center: bool) -> tuple[Tensor, Tensor]:
    """Return the means of both, less the mean of all source samples where asked."""
    if not center:
        return source.means, target.means
    middle = source.weights("counts") @ source.means.double()
    return source.means - middle, target.means - middle


def ground_cost(source: Groups, target: Groups, options: CostOptions) -> Tensor:
    """Return the cost of serving a target group from a source group, shape ``(n, m)`` float64."""
    return cost_between(*views(source, target, center=options.center), options.cost)


def cost_between(rows: Tensor, columns: Tensor, cost: Cost) -> Tensor:
    """Return the cost of serving columns ``(m, d)`` from rows ``(n, d)``, shape ``(n, m)`` float64."""
    if cost == "cosine":
        return cosine_cost(rows, columns)
    if cost == "normalized_euclidean":
        return cosine_cost(rows, columns).mul_(2).sqrt_()  # |x - y|^2 = 2 - 2 cos for unit vectors
    return euclidean_cost(rows, columns)


def uot(source: Groups, target: Groups, *, k: int, options: UotOptions, seed: int) -> Chosen:
    """Take the classes that unbalanced transport draws most on; as Liu et al. run it by default."""
    cost = ground_cost(source, target, options)
    plan = unbalanced_plan(
        cost / options.scale,
        source.weights(options.source_weights),
        target.weights(options.target_weights),
        reg=options.reg,
        reg_source=options.reg_source,
        reg_target=options.reg_target,
        max_iterations=options.max_iterations,
        tolerance=options.tolerance,
    )
    details = {"n_iterations": plan.n_iterations, "converged": plan.converged, "gap": plan.gap}
    return Chosen(plan.source, _descending(plan.source), cost, plan.plan, details)


def semi_relaxed(source: Groups, target: Groups, *, k: int, options: SemiRelaxedOptions, seed: int) -> Chosen:
    """Let every target class spread its mass over the source on its own, in closed form."""
    cost = ground_cost(source, target, options)
    plan = semi_relaxed_plan(cost / options.scale, target.weights(options.target_weights), reg=options.reg)
    return Chosen(plan.source, _descending(plan.source), cost, plan.plan)


def capacity(source: Groups, target: Groups, *, k: int, options: CapacityOptions, seed: int) -> Chosen:
    """Serve every target class at least cost where a source class may give 1/k of all mass at most."""
    cost = ground_cost(source, target, options)
    kind = "counts" if options.target_weights == "counts" else "uniform"
    plan = capacity_plan(cost, target.weights(kind), k=k)
    return Chosen(plan.source, _covering_order(plan, cost, k), cost, plan.plan)


def mean_distance(source: Groups, target: Groups, *, k: int, options: MeanDistanceOptions, seed: int) -> Chosen:
    """Take the classes at the least mean distance to the target classes: Cui et al.'s greedy choice.

    Their rule scores each source class alone by its earth mover's distance to the target, which from a single class
    is the weighted mean of the distances.
    """
    cost = ground_cost(source, target, options)
    order = _descending(-(cost @ target.weights(options.target_weights)))
    return Chosen(_equal_mass(order, k), order, cost)


def nearest(source: Groups, target: Groups, *, k: int, options: CostOptions, seed: int) -> Chosen:
    """Take the classes that are nearest to any one target class."""
    cost = ground_cost(source, target, options)
    order = _descending(-cost.amin(dim=1))
    return Chosen(_equal_mass(order, k), order, cost)


def random(source: Groups, target: Groups, *, k: int, options: Options, seed: int) -> Chosen:
    """Draw classes without looking at the target."""
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    return Chosen(_equal_mass(order, k), order, cosine_cost(source.means, target.means))


def everything(source: Groups, target: Groups, *, k: int, options: Options, seed: int) -> Chosen:
    """Take the whole source."""
    order = torch.arange(len(source))
    return Chosen(_equal_mass(order, len(source)), order, cosine_cost(source.means, target.means))


def _descending(values: Tensor) -> Tensor:
    """Order positions by value, highest first; values that differ by rounding alone are tied."""
    return (-rounded(values)).argsort(stable=True)


def rounded(values: Tensor) -> Tensor:
    """Drop the digits of scores that rounding decides, so that those that differ by no more are tied."""
    mantissa, exponent = torch.frexp(values.double())
    return torch.ldexp((mantissa * 2**_DIGITS).round() / 2**_DIGITS, exponent)


def _equal_mass(order: Tensor, k: int) -> Tensor:
    mass = torch.zeros(len(order), dtype=torch.float64)
    mass[order[:k]] = 1 / k
    return mass


def _covering_order(plan: Plan, cost: Tensor, k: int) -> Tensor:
    """Order by mass, then cheapness; but into the first k come, by greedy cover, sources for every target."""
    mass = plan.source
    cheapness = _places(_descending(-(plan.plan * cost).sum(dim=1) / mass.clamp_min(1e-300)))
    order = cheapness.argsort()
    order = order[_descending(mass[order])]
    place = _places(order)

    used = order[: int((mass > 0).sum())]
    serves = plan.plan[used] > 0  # (u, m)
    gain, left = serves.sum(dim=1), torch.ones(serves.shape[1], dtype=torch.bool)
    picked: list[int] = []
    while len(picked) < k and gain.max() > 0:
        best = int(gain.argmax())  # the first, which has most mass
        new = serves[best] & left
        left &= ~new
        gain -= serves[:, new].sum(dim=1)
        picked.append(best)
    ahead = torch.zeros(len(order), dtype=torch.bool)
    ahead[used[picked]] = True
    rest = order[~ahead[order]][: k - len(picked)]
    ahead[rest] = True
    return (place + len(order) * ~ahead).argsort()


def _places(order: Tensor) -> Tensor:
    """Return the place of each position in an order."""
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order))
    return places


_LIU, _CUI = "Liu et al. 2022, arXiv:2111.12292", "Cui et al. 2018, arXiv:1806.06193"


def _lines(*strategies: Strategy) -> Mapping[str, Strategy]:
    return MappingProxyType({strategy.name: strategy for strategy in strategies})


STRATEGIES = _lines(
    Strategy("uot", uot, UotOptions, "unbalanced optimal transport onto the target classes", _LIU),
    Strategy("semi_relaxed", semi_relaxed, SemiRelaxedOptions, "a softmax over the source per target class", _LIU),
    Strategy("capacity", capacity, CapacityOptions, "transport with at most 1/k from each; covers the target", "ours"),
    Strategy("mean_distance", mean_distance, MeanDistanceOptions, "least mean distance to the target", _CUI),
    Strategy("nearest", nearest, CostOptions, "least distance to any one target class", "baseline"),
    Strategy("random", random, Options, "drawn by the seed", "baseline"),
    Strategy("all", everything, Options, "the whole source", "baseline", needs_k=False),
)


def get_strategy(method: str) -> Strategy:
    """Look a strategy up by name.

    Raises:
        ValueError: If the table has no such name; its names are listed.

    Example:
        >>> get_strategy("uot").reference
        'Liu et al. 2022, arXiv:2111.12292'
    """
    if method in STRATEGIES:
        return STRATEGIES[method]
    close = get_close_matches(str(method), STRATEGIES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"`method` must be one of {list(STRATEGIES)}, got {method!r}.{hint}")


def options_from_settings(settings: Iterable[str], method: str, argument: str = "options") -> dict[str, Any]:
    """Read options that are written as ``name=value``, as a command line gives them.

    Args:
        settings: Texts.
        method: The strategy they are for.
        argument: What to call them in an error.

    Raises:
        ValueError: If one has no equals sign, or the strategy no such option, or the option no such value.

    Example:
        >>> options_from_settings(["center=true", "scale=0.03"], "uot")
        {'center': True, 'scale': 0.03}
    """
    given = read_settings(settings, argument)
    try:
        read_options(get_strategy(method).options, given, method)
    except TypeError as error:
        raise ValueError(str(error)) from None
    return given
