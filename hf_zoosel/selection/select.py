"""From the class means of a source and a target to the record of what was chosen."""

import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from types import MappingProxyType

from hf_zoosel.ranking.record import Setting
from hf_zoosel.selection import describe
from hf_zoosel.selection.groups import Groups
from hf_zoosel.selection.nearness import near_limit, neighbour_distances
from hf_zoosel.selection.options import CostOptions, Options, read_options
from hf_zoosel.selection.record import SourceSelection
from hf_zoosel.selection.strategies import Strategy, get_strategy, views
from hf_zoosel.transport import cosine_cost

_LIBRARIES = ("hf-zoosel", "torch", "POT")


def select_groups(
    source: Groups,
    target: Groups,
    *,
    k: int | None = None,
    method: str = "uot",
    options: Mapping[str, Setting] | None = None,
    seed: int = 0,
) -> SourceSelection:
    """Choose the source classes, or clusters, to train a target with.

    The same classes are chosen in whatever order source and target come; where importances tie, names decide.

    Args:
        source: The source's groups, n of them.
        target: The target's groups, from the same checkpoint and layer.
        k: How many source groups to choose, 1 to n; None for ``all``, which takes them all.
        method: A name in ``STRATEGIES``.
        options: The strategy's options; those not given keep their defaults.
        seed: Seed of ``random``; the others draw nothing.

    Returns:
        The selection. Distances in it are cosine distances whatever the ground cost, of centred means where the
        option ``center`` is on, so that methods can be compared.

    Raises:
        ValueError: If the widths differ, ``k`` is out of range, a name or an option is unknown, or the transport
            problem has no plan with mass.
        TypeError: If ``k`` or an option is of the wrong type.

    Warns:
        UserWarning: If nothing in the source is near the target: at least 9 in 10 target classes are further from
            every source class than 95 % of source classes are from their nearest neighbour. Of target classes that
            might as well be source classes 1 in 20 is. The text is the first of the notes, too.

    Example:
        >>> import torch
        >>> source = Groups(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([50, 50]), ("cat", "car"))
        >>> target = Groups(torch.tensor([[1.0, 0.1]]), torch.tensor([20]), ("lynx",))
        >>> [c.name for c in select_groups(source, target, k=1).classes]
        ['cat']
    """
    if source.n_features != target.n_features:
        raise ValueError(
            f"`source` and `target` must have one width, got {source.n_features} and {target.n_features} features. "
            "Take both from one checkpoint and layer."
        )
    strategy = get_strategy(method)
    n_chosen, chosen_by = check_k(k, strategy, len(source)), read_options(strategy.options, options, method)
    source_index, target_index = source.canonical_order(), target.canonical_order()
    choice = _choose(
        source.take(source_index), target.take(target_index), strategy, n_chosen, options=chosen_by, seed=seed
    )
    warning = describe.nothing_near(choice.least[0], choice.limit)
    if warning:
        warnings.warn(warning, stacklevel=2)
    return SourceSelection(
        method=method,
        n_chosen=n_chosen,
        ranked=describe.source_classes(choice, source_index),
        coverage=describe.target_classes(choice, source_index, target_index),
        n_effective=describe.n_effective(choice.chosen.mass),
        transport_cost=describe.transport_cost(choice.chosen),
        near_limit=choice.limit,
        options=vars(chosen_by),
        seed=seed,
        details=choice.chosen.details,
        notes=(*([warning] if warning else []), *describe.remarks(choice)),
        versions=computed_by(),
    )


@cache
def computed_by() -> Mapping[str, str]:
    """Versions of what a selection is computed with."""
    return MappingProxyType({library: version(library) for library in _LIBRARIES})


def check_k(k: int | None, strategy: Strategy, n: int, what: str = "groups", argument: str = "k") -> int:
    """Return how many of n groups, or samples, to choose; ``argument`` is what the caller calls k."""
    if not strategy.needs_k:
        if k is not None:
            raise ValueError(
                f"`{argument}` must be None for {strategy.name!r}, which takes the whole source, got {k}."
            )
        return n
    if k is None:
        raise ValueError(
            f"`{argument}` must be the number of source {what} that {strategy.name!r} shall choose, got None."
        )
    if not isinstance(k, int) or isinstance(k, bool):
        raise TypeError(f"`{argument}` must be an int, got {k!r}.")
    if not 1 <= k <= n:
        raise ValueError(
            f"`{argument}` must be from 1 to the {n:,} {what} of the source, got {k:,}. Pass one of these."
        )
    return k


def _choose(
    source: Groups, target: Groups, strategy: Strategy, k: int, *, options: Options, seed: int
) -> describe.Choice:
    chosen = strategy.fn(source, target, k=k, options=options, seed=seed)
    center, cost = (options.center, options.cost) if isinstance(options, CostOptions) else (False, "cosine")
    rows, columns = views(source, target, center=center)
    distances = chosen.cost if cost == "cosine" else cosine_cost(rows, columns)
    neighbours = neighbour_distances(rows)
    return describe.Choice(source, target, chosen, k, distances, neighbours, near_limit(neighbours))
