"""The influence of each row on a score that has no formula for it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_zoosel.ranking.strata import numbered, scale, shuffled_within


def jackknife_influence(
    score_fn: Callable[[NDArray[np.intp]], float], labels: ArrayLike, *, n_groups: int = 25, seed: int = 0
) -> NDArray[np.float64]:
    """Estimate a score's influence by deleting one group of rows at a time.

    For a score without a formula for its influence. Groups are drawn at random, spread evenly over each
    class and disjoint; a class of one row is never deleted, and no class ever vanishes. All rows of a
    group share one value. It is the group's mean influence times the root of the group's size, because
    the mean over g rows varies g times less than a row does: a ``Resampler`` turns it into the variance of
    the delete-a-group jackknife, (G - 1) / G * sum_g (T_g - mean T)^2.

    Where the groups cannot take the same share of every class (G does not divide the class sizes), the
    deletions also shift the class proportions, and the variance errs on the large side: by a factor of 3
    for 20 groups, 25 rows a class and class means five standard deviations apart. G equal to the common
    class size avoids it, hence the default, which is also that of ``max_per_class``.

    Args:
        score_fn: The score on the rows it is given, ascending row numbers; called ``n_groups`` times.
        labels: Class of each row, shape ``(n,)``, any integers.
        n_groups: Number of groups G, at least 2; fewer are used where there are fewer rows.
        seed: Seed of the grouping, at least 0.

    Returns:
        Influence, shape ``(n,)``, for ``Resampler.replicates``; 0 for the rows never deleted.

    Raises:
        ValueError: If ``labels`` is not one-dimensional or empty, ``n_groups`` is below 2, or a score is
            not finite.

    Reference:
        Kott, "The delete-a-group jackknife", Journal of Official Statistics 17 (2001); the factors for
        group sizes are exact for a mean, see the tests.

    Example:
        >>> x = np.array([1.0, 3.0, 2.0, 6.0])
        >>> jackknife_influence(lambda rows: x[rows].mean(), [0, 0, 0, 0], n_groups=4).round(6)
        array([-2.,  0., -1.,  3.])
    """
    if n_groups < 2:
        raise ValueError(f"`n_groups` must be at least 2, got {n_groups}.")
    classes, sizes = numbered(labels)
    group_of_row = _groups(classes, sizes, n_groups, seed)  # (n,), -1: never deleted
    n, group_sizes = len(classes), np.bincount(group_of_row + 1, minlength=1)[1:]
    scores = np.array([score_fn(np.flatnonzero(group_of_row != g)) for g in range(len(group_sizes))], dtype=float)
    if not np.isfinite(scores).all():
        raise ValueError(f"`score_fn` must return finite scores, got {scores[~np.isfinite(scores)][0]} on a subset.")
    if not len(scores):
        return np.zeros(n)

    by_group = (n - group_sizes) / np.sqrt(group_sizes) * (scores.mean() - scores)  # (G,)
    # A class present in u < m groups has u - 1, not m - 1, degrees of freedom.
    by_class = np.sqrt(scale(np.minimum(sizes, len(scores))) / scale(sizes))  # (k,)
    return np.where(group_of_row >= 0, by_group[group_of_row] * by_class[classes], 0.0)


def _groups(classes: NDArray[np.intp], sizes: NDArray[np.intp], n_groups: int, seed: int) -> NDArray[np.intp]:
    """Deal the rows of each class in turn to the groups; -1 for a class of one row, shape (n,)."""
    order, _ = shuffled_within(classes, sizes, seed)
    order = order[sizes[classes[order]] > 1]
    groups = np.full(len(classes), -1, dtype=np.intp)
    groups[order] = np.arange(len(order)) % min(n_groups, max(len(order), 1))
    return groups
