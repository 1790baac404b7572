"""From single source samples and the classes of a target to the record of which samples were chosen."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from hf_zoosel.ranking.record import Setting
from hf_zoosel.selection.describe import NOT_CONVERGED, nothing_near
from hf_zoosel.selection.groups import Groups
from hf_zoosel.selection.nearness import near_limit, sample_neighbours
from hf_zoosel.selection.options import (
    CostOptions,
    MeanDistanceOptions,
    Options,
    SemiRelaxedOptions,
    UotOptions,
    read_options,
)
from hf_zoosel.selection.pool import Pool
from hf_zoosel.selection.record import SourceSelection
from hf_zoosel.selection.select import check_k, computed_by
from hf_zoosel.selection.service import PlanOf, Service, serve, target_classes
from hf_zoosel.selection.strategies import cost_between, get_strategy, rounded
from hf_zoosel.transport import SampleMass, semi_relaxed_mass, unbalanced_mass


@dataclass(frozen=True, eq=False)
class Scored:
    """What a method says of this process's samples.

    Attributes:
        importance: Of each sample, ``(n_local,)`` float64; the most important are chosen.
        plan_of: Where their mass goes; None for a method without a plan.
        details: What the solver says of itself.
    """

    importance: Tensor
    plan_of: PlanOf | None = None
    details: Mapping[str, Setting] = field(default_factory=dict)


def select_samples(
    pool: Pool,
    target: Groups,
    *,
    k: int,
    method: str = "uot",
    options: Mapping[str, Setting] | None = None,
    seed: int = 0,
) -> SourceSelection:
    """Choose single source samples to train a target with.

    The features are read block by block, once an iteration of a transport problem and four or five times more; what
    is held is the target, one block and some 60 bytes a sample. Any number of processes choose the same samples,
    those that tie by row.

    Args:
        pool: The source's samples; on several processes each calls with its own.
        target: The target's groups, from the same checkpoint and layer.
        k: How many samples to choose, 1 to n.
        method: ``uot``, ``semi_relaxed``, ``mean_distance``, ``nearest`` or ``random``.
        options: Its options, those it has for classes. Transport of samples knows the cosine cost only, and of the
            source weights of 1.
        seed: Seed of ``random``.

    Returns:
        The selection, alike on every process: ``rows``, their ``weights`` (masses; 1/k by a method without a plan) and
        ``coverage``. ``near_limit`` is the distance within which 95 % of 256 source samples have another. A mean lies
        nearer to samples than they do to each other, so a target class beyond the limit is far indeed, but one within
        it need not be near.

    Raises:
        ValueError: If the widths differ, ``k`` is out of range, a name or an option is unknown or not for samples, a
            row is not finite or has no length, or the samples give next to nothing of what is wanted.
        TypeError: If ``k`` or an option is of the wrong type.

    Warns:
        UserWarning: If nothing in the source is near the target, or the iterations do not converge.

    Reference:
        Liu et al. 2022, https://arxiv.org/abs/2111.12292, with samples in the place of class means (ours).

    Example:
        >>> pool = Pool.of(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.3]]))
        >>> target = Groups(torch.tensor([[1.0, 0.1]]), torch.tensor([20]), ("lynx",))
        >>> select_samples(pool, target, k=2).rows
        (0, 2)
    """
    score, chosen_by = sample_method(method), read_options(get_strategy(method).options, options, method)
    check_k(k, get_strategy(method), len(pool), "samples")
    pool.check(width=target.n_features)
    index = target.canonical_order()
    pool, target = _centred(pool, target.take(index), center=getattr(chosen_by, "center", False))
    scored = score(pool, target, chosen_by, seed)
    chosen = _most_important(pool, scored.importance, k)
    neighbours = sample_neighbours(pool)
    limit, planned = near_limit(neighbours), scored.plan_of is not None
    mass = scored.importance if planned else chosen.double() / k
    service = serve(pool, target, mass, chosen, plan_of=scored.plan_of or _no_plan, limit=limit)
    warning = nothing_near(service.least, limit, ("sample", "samples"))
    rows, weights = _gathered(pool, pool.rows[chosen], mass[chosen])
    total, squares = pool.total(torch.stack([mass.sum(), mass.square().sum()])).tolist()
    if warning and pool.is_main:
        warnings.warn(warning, stacklevel=2)
    return SourceSelection(
        method=method,
        n_chosen=0,
        ranked=(),
        coverage=target_classes(service, target, index, planned=planned, neighbours=neighbours, limit=limit),
        n_effective=total**2 / squares,
        transport_cost=service.sums[3].sum().item() / total if planned else None,
        near_limit=limit,
        unit="sample",
        options=vars(chosen_by),
        seed=seed,
        rows=tuple(rows.tolist()),
        weights=tuple(weights.tolist()),
        details={"n_samples": len(pool), **scored.details},
        notes=(*([warning] if warning else []), *_remarks(scored, service, weights, total)),
        versions=computed_by(),
    )


def _centred(pool: Pool, target: Groups, *, center: bool) -> tuple[Pool, Groups]:
    """Subtract the mean of all source samples from both where asked."""
    if not center:
        return pool, target
    middle = pool.mean()
    return pool.less(middle), replace(target, means=target.means - middle)


def _uot(pool: Pool, target: Groups, options: UotOptions, seed: int) -> Scored:
    _check_ones("source_weights", options.source_weights)
    regularisation = {name: getattr(options, name) for name in ("reg_source", "reg_target")}
    ending = {name: getattr(options, name) for name in ("max_iterations", "tolerance")}
    return _transported(partial(unbalanced_mass, **regularisation, **ending), pool, target, options)


def _semi_relaxed(pool: Pool, target: Groups, options: SemiRelaxedOptions, seed: int) -> Scored:
    return _transported(semi_relaxed_mass, pool, target, options)


def _transported(solve: Callable[..., SampleMass], pool: Pool, target: Groups, options: SemiRelaxedOptions) -> Scored:
    if options.cost != "cosine":
        raise ValueError(f"`cost` must be 'cosine' for transport of single samples, got {options.cost!r}.")
    b, given = target.weights(options.target_weights), {"scale": options.scale, "reg": options.reg}
    found = solve(pool.blocks, target.means, b, **given, reduce=pool.log_total)

    def plan_of(distances: Tensor, mass: Tensor) -> Tensor:
        return (found.log_scaling - distances / (options.scale * options.reg)).softmax(dim=1) * mass[:, None]

    details = {"n_iterations": found.n_iterations, "converged": found.converged, "gap": found.gap}
    return Scored(found.mass, plan_of, details)


def _mean_distance(pool: Pool, target: Groups, options: MeanDistanceOptions, seed: int) -> Scored:
    weights = target.weights(options.target_weights)
    return _by_distance(pool, target, options, lambda cost: cost @ weights)


def _nearest(pool: Pool, target: Groups, options: CostOptions, seed: int) -> Scored:
    return _by_distance(pool, target, options, lambda cost: cost.amin(dim=1))


def _by_distance(pool: Pool, target: Groups, options: CostOptions, summary: Callable[[Tensor], Tensor]) -> Scored:
    importance = torch.zeros(len(pool.rows), dtype=torch.float64)
    for at, block in pool.numbered():
        importance[at] = -summary(cost_between(block, target.means, options.cost))
    return Scored(importance)


def _random(pool: Pool, target: Groups, options: Options, seed: int) -> Scored:
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
    return Scored(-order.argsort()[pool.places].double())


SAMPLE_METHODS: Mapping[str, Callable[..., Scored]] = MappingProxyType(
    {
        "uot": _uot,
        "semi_relaxed": _semi_relaxed,
        "mean_distance": _mean_distance,
        "nearest": _nearest,
        "random": _random,
    }
)


def sample_method(method: str) -> Callable[..., Scored]:
    """Look a method up by name.

    Raises:
        ValueError: If there is no such method, or it does not choose samples.
    """
    if method not in SAMPLE_METHODS:
        get_strategy(method)  # an unknown name is another matter
        raise ValueError(
            f"`method` must be one of {list(SAMPLE_METHODS)} for single samples, got {method!r}. "
            "Choose classes or clusters with it."
        )
    return SAMPLE_METHODS[method]


def _most_important(pool: Pool, importance: Tensor, k: int) -> Tensor:
    """Tell which of this process's samples are among the k most important of all, ``(n_local,)`` bool."""
    scores = rounded(importance)
    own = (-scores).argsort(stable=True)[:k]
    rows, scores = _gathered(pool, pool.rows[own], scores[own])
    return torch.isin(pool.rows, rows[(-scores).argsort(stable=True)[:k]])


def _gathered(pool: Pool, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of all processes, ascending, and their values."""
    everywhere = pool.gather((rows, values))
    rows, values = (torch.cat([one[i] for one in everywhere]) for i in (0, 1))
    order = rows.argsort()
    return rows[order], values[order]


def _no_plan(distances: Tensor, mass: Tensor) -> Tensor:
    return torch.zeros_like(distances)


def _check_ones(name: str, weights: str) -> None:
    if weights != "ones":
        raise ValueError(f"`{name}` must be 'ones' for transport of single samples, got {weights!r}.")


def _remarks(scored: Scored, service: Service, weights: Tensor, total: float) -> list[str]:
    """Say what else a person should know."""
    notes = []
    empty = int((weights == 0).sum())
    if empty:
        notes.append(f"{empty:,} of the {len(weights):,} samples carry no mass: choose fewer, or a larger scale.")
    if scored.plan_of is not None:
        notes.append(f"The chosen samples carry {100 * weights.sum() / total:.1f} % of the mass.")
    if scored.details.get("converged") is False:
        notes.append(NOT_CONVERGED)
    return notes
