"""From scores and their bootstrap replicates to an order with intervals and chances of being first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hf_zoosel.ranking.record import CandidateResult, Score, in_order_of
from hf_zoosel.ranking.resampling import interval

Replicates = Mapping[tuple[str, str], NDArray[np.float64]]


def rank_candidates(
    results: Sequence[CandidateResult],
    replicates: Replicates | None = None,
    *,
    metrics: Sequence[str],
    level: float = 0.95,
) -> tuple[CandidateResult, ...]:
    """Order candidates by the first metric and say how sure each score is.

    A score that is not finite becomes a reason in ``skipped``. Equal scores share a rank (1, 1, 3) and
    stand in order of name; candidates without a score of the first metric follow with rank None, failed
    ones come last.

    Args:
        results: What is known of each candidate; names differ. Ranks and intervals in it are replaced.
        replicates: Paired bootstrap replicates, (candidate, metric) -> shape ``(n_bootstrap,)``. A score
            without replicates has no interval, and its metric no ``p_best``.
        metrics: Names of the metrics; the first one orders.
        level: Level of the intervals, above 0 and below 1.

    Returns:
        The candidates in order, with ``rank`` and, per score, ``low``, ``high`` and ``p_best``: the share
        of resamples in which the candidate comes first, ties shared equally, summing to 1 over the
        candidates with that score.

    Raises:
        ValueError: If ``metrics`` is empty, two candidates have one name, ``level`` is out of range, or
            replicates are not finite or of different lengths.

    Example:
        >>> a, b = CandidateResult("a", scores={"lfc": Score(0.2)}), CandidateResult("b", scores={"lfc": Score(0.3)})
        >>> replicates = {("a", "lfc"): np.array([0.1, 0.3]), ("b", "lfc"): np.array([0.2, 0.4])}
        >>> [(c.name, c.rank, c.scores["lfc"].p_best) for c in rank_candidates([a, b], replicates, metrics=["lfc"])]
        [('b', 1, 1.0), ('a', 2, 0.0)]
    """
    if not metrics:
        raise ValueError("`metrics` must name at least one metric, got none.")
    finite = [_without_infinite_scores(result) for result in results]
    names = [result.name for result in finite]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"`results` must have one result per name, got several of {twice}. Rename all but one.")
    for metric in metrics:
        finite = _with_intervals(finite, replicates or {}, metric=metric, level=level)
    return in_order_of(metrics[0], finite)


def _without_infinite_scores(result: CandidateResult) -> CandidateResult:
    bad = {metric: score.value for metric, score in result.scores.items() if not math.isfinite(score.value)}
    if not bad:
        return result
    return replace(
        result,
        scores={metric: score for metric, score in result.scores.items() if metric not in bad},
        skipped={**result.skipped, **{metric: f"the score is not finite ({value})" for metric, value in bad.items()}},
    )


def _with_intervals(
    results: Sequence[CandidateResult], replicates: Replicates, *, metric: str, level: float
) -> list[CandidateResult]:
    """Fill in the interval and the chance of being first of every score of one metric."""
    scored = [result.name for result in results if not result.failed and metric in result.scores]
    drawn = {name: _checked(replicates[name, metric], name, metric) for name in scored if (name, metric) in replicates}
    chances = _chances_of_first(drawn, metric) if len(drawn) == len(scored) else {}
    filled = []
    for result in results:
        if metric in result.scores:
            value = result.scores[metric].value
            low, high = interval(drawn[result.name], level) if result.name in drawn else (None, None)
            score = Score(value, low, high, chances.get(result.name))
            filled.append(replace(result, scores={**result.scores, metric: score}))
        else:
            filled.append(result)
    return filled


def _chances_of_first(drawn: Mapping[str, NDArray[np.float64]], metric: str) -> dict[str, float]:
    if not drawn:
        return {}
    if len(lengths := {len(values) for values in drawn.values()}) > 1:
        raise ValueError(
            f"`replicates` of {metric!r} must be paired, as many for each candidate, got {sorted(lengths)} of them."
        )
    values = np.stack(list(drawn.values()))  # (n_candidates, n_bootstrap)
    first = values == values.max(axis=0)
    shares = (first / first.sum(axis=0)).mean(axis=1)  # ties share
    return dict(zip(drawn, shares.tolist(), strict=True))


def _checked(values: NDArray[np.float64], name: str, metric: str) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"`replicates` of {name!r}, {metric!r} must be finite with shape (n_bootstrap,), got shape {values.shape} "
            f"with {np.isfinite(values).sum()} finite values. Leave the pair out where there are none."
        )
    return values
