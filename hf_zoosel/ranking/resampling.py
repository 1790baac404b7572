"""How sure is a score: a stratified bootstrap that never computes a score again.

Notation: n rows, class c has m_c rows, B replicates, w (B, n) weights with mean 1 in every class.
A score T re-weighted by w is, to first order, T + mean((w - 1) * influence), so one influence vector
per score replaces B evaluations of it.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_zoosel.ranking.strata import numbered, scale, shuffled_within

_MAX_UNITS = 20_000
_CHUNK = 2_000_000  # elements held at a time while drawing or multiplying, 16 MB of float64


class Resampler:
    """Bootstrap replicates of any number of scores of one task, from their influences.

    A class of m rows gets m - 1 draws with replacement, scaled by m / (m - 1), which makes the variance of
    its mean the unbiased s^2 / m instead of the (m - 1) / m of it that m draws give. A class of one row
    keeps the weight 1. The weights depend on labels and seed only: replicates of two candidates are paired.

    Above ``max_units`` rows, rows are grouped at random within their class and the groups are drawn, which
    leaves the expected variance as it is. Memory is one byte for each replicate and group, so 20 MB for
    1,000 replicates of a million rows; a task with more than ``max_units / 2`` classes needs two groups per
    class.

    Args:
        labels: Class of each row, shape ``(n,)``, any integers.
        n_bootstrap: Number of replicates B, at least 1.
        seed: Seed of the grouping and the draws, at least 0.
        max_units: Rows or groups of rows to draw from.

    Raises:
        ValueError: If ``labels`` is not one-dimensional or empty, or ``n_bootstrap`` is below 1.

    Reference:
        Rao and Wu, "Resampling inference with complex survey data", JASA 83 (1988), section 2, with
        m - 1 draws per stratum; Efron, "The Jackknife, the Bootstrap and Other Resampling Plans" (1982),
        chapter 6 (the infinitesimal jackknife).

    Example:
        >>> resampler = Resampler([0, 0, 0, 1, 1, 1], n_bootstrap=2000, seed=0)
        >>> correct = np.array([1, 1, 0, 1, 0, 1])
        >>> replicates = resampler.replicates(correct.mean(), correct - correct.mean())
        >>> low, high = interval(replicates, level=0.9)
        >>> bool(low < correct.mean() < high)
        True
    """

    def __init__(
        self, labels: ArrayLike, n_bootstrap: int = 1000, seed: int = 0, *, max_units: int = _MAX_UNITS
    ) -> None:
        classes, sizes = numbered(labels)
        self._unit_of_row, self._class_of_unit = _units(classes, sizes, max_units, seed)  # (n,), (n_units,)
        self._counts = _draw_counts(self._class_of_unit, n_bootstrap, seed)  # (B, n_units)

    def replicates(self, score: float, influence: ArrayLike) -> NDArray[np.float64]:
        """Return the score's bootstrap replicates, score + mean((w - 1) * influence).

        Args:
            score: The score on all rows.
            influence: First-order effect of each row on the score, shape ``(n,)``: the score on rows
                weighted by w is score + mean((w - 1) * influence). A constant added within a class changes
                nothing, since class counts are kept.

        Returns:
            Replicates, shape ``(n_bootstrap,)``, the k-th of every score from the same resample.

        Raises:
            ValueError: If ``influence`` has another shape or a value that is not finite.
        """
        rows = np.asarray(influence, dtype=np.float64)
        n = len(self._unit_of_row)
        if rows.shape != (n,):
            raise ValueError(f"`influence` must have shape ({n},), one value per label, got {rows.shape}.")
        if not np.isfinite(rows).all():
            raise ValueError(f"`influence` must be finite, got {(~np.isfinite(rows)).sum()} values that are not.")
        step = max(1, _CHUNK // self._counts.shape[1])
        effect = self._effect_of_units(rows) / n
        shifts = [self._counts[i : i + step].astype(np.float64) @ effect for i in range(0, len(self._counts), step)]
        return score + np.concatenate(shifts)

    def _effect_of_units(self, influence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum the influence over each unit, centred in the class, scaled for one draw fewer than units."""
        rows_per_unit = np.bincount(self._unit_of_row)
        sums = np.bincount(self._unit_of_row, weights=influence)
        class_mean = np.bincount(self._class_of_unit, sums) / np.bincount(self._class_of_unit, rows_per_unit)
        centred = sums - rows_per_unit * class_mean[self._class_of_unit]
        return centred * scale(np.bincount(self._class_of_unit))[self._class_of_unit]


def interval(replicates: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap replicates.

    Args:
        replicates: Bootstrap replicates of one score, shape ``(n_bootstrap,)``.
        level: Share of the replicates inside, above 0 and below 1.

    Returns:
        The lower and the upper end, in the unit of the score.

    Raises:
        ValueError: If ``level`` is out of range.

    Example:
        >>> interval(np.arange(101), level=0.5)
        (25.0, 75.0)
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must be above 0 and below 1, got {level}. For 95 % pass 0.95.")
    low, high = np.quantile(np.asarray(replicates, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _draw_counts(classes: NDArray[np.intp], n_bootstrap: int, seed: int) -> NDArray[np.uint8]:
    """Count how often each unit is drawn, m - 1 draws per class of m, shape (B, n_units)."""
    if n_bootstrap < 1:
        raise ValueError(f"`n_bootstrap` must be at least 1, got {n_bootstrap}. Leave the replicates out for none.")
    random = np.random.default_rng([seed, 0])
    sizes, n_units = np.bincount(classes), len(classes)
    by_class = np.argsort(classes, kind="stable")
    draws = np.maximum(sizes - 1, 0)
    first, size = np.repeat(np.cumsum(sizes) - sizes, draws), np.repeat(sizes, draws)  # (n_draws,)
    counts = np.empty((n_bootstrap, n_units), dtype=np.uint8)
    step = max(1, _CHUNK // n_units)
    for start in range(0, n_bootstrap, step):
        rows = min(step, n_bootstrap - start)
        drawn = first + (random.random((rows, len(size))) * size).astype(np.intp)
        drawn += np.arange(rows)[:, None] * n_units
        counts[start : start + rows, by_class] = np.bincount(drawn.ravel(), minlength=rows * n_units).reshape(rows, -1)
    counts[:, sizes[classes] == 1] = 1
    return counts


def _units(
    classes: NDArray[np.intp], sizes: NDArray[np.intp], max_units: int, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the unit of each row, shape (n,), and the class of each unit, shape (n_units,)."""
    n = len(classes)
    if n <= max_units:
        return np.arange(n), classes
    units = np.clip(sizes * max_units // n, np.minimum(sizes, 2), sizes)  # (k,)
    order, position = shuffled_within(classes, sizes, seed)
    in_order = classes[order]
    unit_of_row = np.empty(n, dtype=np.intp)
    unit_of_row[order] = (np.cumsum(units) - units)[in_order] + position * units[in_order] // sizes[in_order]
    return unit_of_row, np.repeat(np.arange(len(sizes)), units)
