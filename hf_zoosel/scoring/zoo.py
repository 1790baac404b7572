"""Scores that depend on the other candidates: zoo-relative metrics, and the consensus of metrics."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.metrics import Metric
from hf_zoosel.ranking import Score
from hf_zoosel.scoring.candidate import Scored, Terms
from hf_zoosel.zoo.errors import one_line

logger = logging.getLogger(__name__)


def score_over_zoo(scored: Sequence[Scored], metrics: Sequence[Metric]) -> list[Scored]:
    """Add the scores of zoo-relative metrics, and after them of those made of other metrics' scores.

    Args:
        scored: All candidates; those without terms of a metric have no score of it.
        metrics: All that were asked for.
    """
    done = list(scored)
    for metric in metrics:
        if metric.over_zoo is not None and "scores" not in metric.needs:
            done = _with_scores(done, metric, [one.terms.get(metric.name) for one in done])
    for metric in metrics:
        if "scores" in metric.needs:
            members = [other.name for other in metrics if not other.is_static and "scores" not in other.needs]
            done = [one if _scores_of(one, members) else _unplaced(one, metric.name) for one in done]
            done = _with_scores(done, metric, [_scores_of(one, members) for one in done])
    return done


def _scores_of(one: Scored, members: Sequence[str]) -> Terms | None:
    """A candidate's scores by the member metrics, NaN where it has none."""
    if not any(name in one.result.scores for name in members):
        return None
    values = [one.result.scores[name].value if name in one.result.scores else np.nan for name in members]
    drawn = [one.replicates.get(name) for name in members]
    length = next((len(some) for some in drawn if some is not None), 0)
    constant = [np.full(length, value) for value in values]  # a score without replicates stays as it is
    pairs = zip(drawn, constant, strict=True)
    replicates = np.stack([fixed if some is None else some for some, fixed in pairs], axis=1) if length else None
    return Terms(np.asarray(values), replicates)


def _with_scores(scored: list[Scored], metric: Metric, terms: Sequence[Terms | None]) -> list[Scored]:
    """Score the candidates that have terms, together."""
    there = [(number, some) for number, some in enumerate(terms) if some is not None]
    if not there or metric.over_zoo is None:
        return scored
    done = list(scored)
    try:
        values = _over_zoo(metric.over_zoo, np.stack([some.values for _, some in there]))
    except Exception as error:  # a metric that fails must not take the others' scores with it
        for number, _ in there:
            done[number] = _skipped(done[number], metric.name, one_line(error))
        return done
    replicates = _replicates(metric, [some for _, some in there])
    for place, (number, _) in enumerate(there):
        drawn = None if replicates is None else replicates[:, place]
        done[number] = _scored(done[number], metric.name, float(values[place]), drawn)
    return done


def _over_zoo(over_zoo: Callable[[Tensor], Tensor], terms: np.ndarray) -> np.ndarray:
    scores = over_zoo(torch.from_numpy(terms)).numpy()
    if scores.shape != terms.shape[:1]:
        raise ValueError(f"`over_zoo` must return shape {terms.shape[:1]}, one score a candidate, got {scores.shape}.")
    return scores


def _replicates(metric: Metric, terms: Sequence[Terms]) -> np.ndarray | None:
    """The b-th replicate of every candidate, scored together, ``(n_bootstrap, m)``."""
    drawn = [some.replicates for some in terms if some.replicates is not None]
    if len(drawn) < len(terms) or metric.over_zoo is None:
        return None
    try:
        scores = np.stack([_over_zoo(metric.over_zoo, zoo) for zoo in np.stack(drawn, axis=1)])  # of (m, q) each
        if np.isfinite(scores).all():
            return scores
        reason: object = "a replicate is not finite"
    except Exception as error:  # the scores stand without their intervals
        reason = error
    logger.warning("No interval for %r: %s", metric.name, reason)
    return None


def _unplaced(one: Scored, metric: str) -> Scored:
    return one if one.result.failed else _skipped(one, metric, "no metric it is made of has a score of it")


def _scored(one: Scored, metric: str, value: float, replicates: np.ndarray | None) -> Scored:
    if not np.isfinite(value):
        return _skipped(one, metric, f"the score is not finite ({value})")
    result = replace(one.result, scores={**one.result.scores, metric: Score(value)})
    more = {} if replicates is None else {metric: replicates}
    return replace(one, result=result, replicates={**one.replicates, **more})


def _skipped(one: Scored, metric: str, reason: str) -> Scored:
    return replace(one, result=replace(one.result, skipped={**one.result.skipped, metric: reason}))
