"""Which rows a step sees, as a function of the seed and the step alone: nothing has to be saved to go on exactly."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from hf_zoosel.training.randomness import Purpose, generator


@dataclass(frozen=True)
class TargetPlan:
    """Passes over the target, each in an order of its own; what does not fill a batch is left for other passes.

    Args:
        n_rows: Rows of the target, at least 1.
        batch_size: Rows of a step over all processes, at least 1; all rows where there are fewer.
        seed: Seed of the orders.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> plan = TargetPlan(5, 2, seed=0)
        >>> plan.steps_per_epoch, len({*plan.rows(0), *plan.rows(1)})
        (2, 4)
    """

    n_rows: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        _check(self.n_rows, self.batch_size, self.seed)
        object.__setattr__(self, "batch_size", min(self.batch_size, self.n_rows))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the target."""
        return self.n_rows // self.batch_size

    def rows(self, step: int) -> np.ndarray:
        """Rows of a step, counted from 0 over all epochs, int64 ``(batch_size,)``."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _order(self.seed, Purpose.TARGET_ORDER, epoch, self.n_rows)
        return order[place * self.batch_size : (place + 1) * self.batch_size]


@dataclass(frozen=True, eq=False)
class SourcePlan:
    """Endless passes over the source, each in an order of its own; or draws in proportion to weights.

    Args:
        n_rows: Rows of the source, at least 1.
        batch_size: Rows of a step over all processes, at least 1. A batch may span passes.
        seed: Seed of the orders and draws.
        weights: Weight of each row, ``(n_rows,)``, at least 0: rows are drawn with replacement, those of weight 0
            never. None for passes in which every row comes once.

    Raises:
        ValueError: If a number is out of range, or the weights are not as described or all 0.

    Example:
        >>> plan = SourcePlan(3, 2, seed=0)
        >>> sorted(np.concatenate([plan.rows(step) for step in range(3)]).tolist())
        [0, 0, 1, 1, 2, 2]
        >>> SourcePlan(3, 4, seed=0, weights=np.array([0.0, 2.0, 0.0])).rows(7).tolist()
        [1, 1, 1, 1]
    """

    n_rows: int
    batch_size: int
    seed: int
    weights: np.ndarray | None = None
    _cumulative: np.ndarray | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        _check(self.n_rows, self.batch_size, self.seed)
        if self.weights is not None:
            object.__setattr__(self, "_cumulative", _cumulative(np.asarray(self.weights), self.n_rows))

    def rows(self, step: int) -> np.ndarray:
        """Rows of a step, counted from 0, int64 ``(batch_size,)``."""
        if self._cumulative is not None:
            points = generator(self.seed, Purpose.SOURCE_DRAW, step).random(self.batch_size)
            return np.searchsorted(self._cumulative, points, side="right")  # passes over rows of weight 0
        at = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        passes, places = np.divmod(at, self.n_rows)
        orders = {p: _order(self.seed, Purpose.SOURCE_ORDER, p, self.n_rows) for p in np.unique(passes).tolist()}
        return np.concatenate([order[places[passes == p]] for p, order in orders.items()])


def share(rows: np.ndarray, rank: int, size: int) -> np.ndarray:
    """The rows of one process among ``size``: the ``rank``-th slice.

    Raises:
        ValueError: If the rows cannot be shared evenly.

    Example:
        >>> share(np.arange(6), 1, 3).tolist()
        [2, 3]
    """
    each, rest = divmod(len(rows), size)
    if rest:
        raise ValueError(
            f"`batch_size` must be divisible by the {size} processes, got {len(rows)} rows a step. "
            f"Pass {max(1, each) * size}, or another multiple of {size} that the data set can fill."
        )
    return rows[rank * each : (rank + 1) * each]


@lru_cache(maxsize=6)
def _order(seed: int, purpose: Purpose, number: int, n_rows: int) -> np.ndarray:
    order = generator(seed, purpose, number).permutation(n_rows)
    order.setflags(write=False)
    return order


def _cumulative(weights: np.ndarray, n_rows: int) -> np.ndarray:
    if weights.shape != (n_rows,):
        raise ValueError(f"`weights` must have shape ({n_rows},), one a row, got {weights.shape}.")
    total = weights.astype(np.float64).cumsum()
    if not np.isfinite(total[-1]) or (weights < 0).any() or total[-1] == 0:
        raise ValueError(
            f"`weights` must be finite, at least 0 and not all 0, got {weights.min()} to {weights.max()}. "
            "Pass None to take every row as often."
        )
    return total / total[-1]


def _check(n_rows: int, batch_size: int, seed: int) -> None:
    for name, number, least in (("n_rows", n_rows, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if number < least:
            raise ValueError(f"`{name}` must be at least {least}, got {number}.")
