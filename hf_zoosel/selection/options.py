"""Options of the strategies: one frozen record each, every default written here, every value checked."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args

Cost = Literal["cosine", "euclidean", "normalized_euclidean"]
Weights = Literal["ones", "uniform", "counts"]
_CHOICES = {"cost": get_args(Cost), "source_weights": get_args(Weights), "target_weights": get_args(Weights)}


@dataclass(frozen=True)
class Options:
    """No options; the base of all.

    Raises:
        ValueError: If a choice is unknown or a number not finite and positive.
        TypeError: If a value is of another type than its default.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name), field.default))


@dataclass(frozen=True)
class CostOptions(Options):
    """What every strategy that compares means can be told.

    Attributes:
        cost: ``cosine`` is 1 - cos; ``normalized_euclidean`` the distance of means of length 1, ``euclidean`` of the
            means as they are.
        center: Subtract the mean of all source samples from every mean first. Features that are never negative have a
            large mean in common, which makes all cosines alike.
    """

    cost: Cost = "cosine"
    center: bool = False


@dataclass(frozen=True)
class SemiRelaxedOptions(CostOptions):
    """Options of semi-relaxed transport.

    Attributes:
        scale: The cost is divided by it: the smaller, the fewer classes share the mass.
        reg: Entropic regularisation in units of the scaled cost.
        target_weights: Mass of a target class: 1, 1/m, or its share of the samples.
    """

    scale: float = 0.1
    reg: float = 1.0
    target_weights: Weights = "ones"


@dataclass(frozen=True)
class UotOptions(SemiRelaxedOptions):
    """Options of unbalanced transport; the defaults are the authors'.

    Attributes:
        reg_source: Weight of the Kullback-Leibler divergence of the source marginal from its weights.
        reg_target: The same for the target; the larger, the more exactly every target class is served.
        source_weights: Mass of a source class: 1, 1/n, or its share of the samples.
        max_iterations: Iterations of the solver at most.
        tolerance: Relative change at which the solver stops.
    """

    reg_source: float = 1.0
    reg_target: float = 100.0
    source_weights: Weights = "ones"
    max_iterations: int = 1000
    tolerance: float = 1e-6


@dataclass(frozen=True)
class CapacityOptions(CostOptions):
    """Options of capacity-constrained transport.

    Attributes:
        target_weights: Mass of a target class: 1/m (as do ``ones``), or its share of the samples.
    """

    target_weights: Weights = "uniform"


@dataclass(frozen=True)
class MeanDistanceOptions(CostOptions):
    """Options of the ranking by mean distance; the defaults are Cui et al.'s.

    Attributes:
        target_weights: Weight of a target class in the mean: its share of the samples, or the same for each.
    """

    cost: Cost = "euclidean"
    target_weights: Weights = "counts"


Kind = TypeVar("Kind", bound=Options)


def read_options(kind: type[Kind], given: Mapping[str, Any] | None, method: str) -> Kind:
    """Complete options by their defaults.

    Raises:
        ValueError: If the method has no such option; its options are listed.

    Example:
        >>> read_options(SemiRelaxedOptions, {"reg": 0.5}, "semi_relaxed").reg
        0.5
    """
    known = [field.name for field in fields(kind)]
    unknown = [name for name in given or {} if name not in known]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`options` of {method!r} must be some of {known}, got {unknown[0]!r}.{hint}")
    return kind(**(given or {}))


def _checked(name: str, value: Any, default: Any) -> Any:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise ValueError(f"`{name}` must be one of {list(_CHOICES[name])}, got {value!r}.")
        return value
    if isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise TypeError(f"`{name}` must be of type {type(default).__name__}, got {value!r}.")
    if not isinstance(value, bool) and not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be finite and above 0, got {value}.")
    return value
