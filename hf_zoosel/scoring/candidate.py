"""From one candidate's features to its scores and their bootstrap replicates."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.features import Features
from hf_zoosel.metrics import METRICS, VARIANTS, Metric
from hf_zoosel.metrics.registry import PER_ROW
from hf_zoosel.ranking import CandidateResult, Resampler, Score, jackknife_influence
from hf_zoosel.scoring.inputs import Extras, inputs_of
from hf_zoosel.tasks import Task
from hf_zoosel.zoo import Candidate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """A zoo-relative metric of one candidate: its terms ``(q,)``; their replicates ``(n_bootstrap, q)`` or None."""

    values: np.ndarray
    replicates: np.ndarray | None


@dataclass(frozen=True)
class Scored:
    """One candidate's result, still without rank.

    Attributes:
        result: Its scores by the metrics that depend on it alone.
        replicates: Bootstrap replicates of these, by metric, ``(n_bootstrap,)``.
        terms: What the zoo-relative metrics will be made of, by metric.
        notes: What to tell a person.
    """

    result: CandidateResult
    replicates: Mapping[str, np.ndarray] = field(default_factory=dict)
    terms: Mapping[str, Terms] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def failure(cls, name: str, reason: object, revision: str | None = None) -> "Scored":
        """A candidate that could not be used."""
        return cls(CandidateResult(name=name, error=str(reason), revision=revision))

    def with_source(self, spec: object) -> "Scored":
        """The same, naming what a person asked for, where that is a name."""
        source = str(spec) if isinstance(spec, str | Path) else None
        return replace(self, result=replace(self.result, source=source))


def score(
    candidate: Candidate,
    features: Features,
    task: Task,
    *,
    metrics: Sequence[Metric],
    extras: Extras,
    n_bootstrap: int,
    seed: int,
) -> Scored:
    """Score a candidate by every metric it can be scored by.

    Args:
        candidate: Which one.
        features: Its features.
        task: Where they come from; gives the labels.
        metrics: What to compute. One that fails, or whose needs the candidate cannot meet, becomes a
            reason in the result.
        extras: What metrics need beside the features.
        n_bootstrap: Replicates of each score; 0 for none.
        seed: Seeds them, and the groups of metrics without a closed-form influence.
    """
    labels = _labels(task, features)
    resampled = n_bootstrap > 0 and int(labels.bincount().max()) > 1  # one image a class: nothing to draw again
    resampler = Resampler(labels.numpy(), n_bootstrap, seed) if resampled else None
    scores: dict[str, Score] = {}
    skipped: dict[str, str] = {}
    replicates: dict[str, np.ndarray] = {}
    terms: dict[str, Terms] = {}
    for metric in metrics:
        if "scores" in metric.needs:
            continue  # made of the others, when all candidates have theirs
        try:
            inputs = inputs_of(metric, candidate, features, labels, extras)
            values, influences = _evaluate(metric, inputs, labels, seed=seed if resampler is not None else None)
        except Exception as error:  # a metric that fails on one candidate must not take the others' scores with it
            logger.debug("%s of %s failed", metric.name, candidate.name, exc_info=True)
            skipped[metric.name] = str(error).splitlines()[0] if str(error) else type(error).__name__
            continue
        if not all(map(math.isfinite, values)):
            skipped[metric.name] = f"the score is not finite ({', '.join(map(str, values))})"
            continue
        drawn = _replicates(metric, values, influences, resampler)
        if metric.over_zoo is not None:
            terms[metric.name] = Terms(np.asarray(values), drawn)
            continue
        scores[metric.name] = Score(values[0])
        if drawn is not None:
            replicates[metric.name] = drawn[:, 0]
    result = CandidateResult(
        name=candidate.name,
        scores=scores,
        skipped=skipped,
        n_parameters=features.n_parameters,
        n_features=features.features.shape[1],
        n_samples=len(labels),
        seconds=round(features.seconds, 3),
        revision=candidate.revision,
    )
    return Scored(result, replicates, terms, _notes(candidate, features))


def _replicates(
    metric: Metric, values: Sequence[float], influences: Sequence[np.ndarray] | None, resampler: Resampler | None
) -> np.ndarray | None:
    """Replicates of each value, ``(n_bootstrap, q)``."""
    if resampler is None or influences is None:
        return None
    try:
        pairs = zip(values, influences, strict=True)
        return np.stack([resampler.replicates(value, influence) for value, influence in pairs], axis=1)
    except ValueError as error:  # the score stands without its interval
        logger.warning("No interval for %r: %s", metric.name, error)
        return None


def _labels(task: Task, features: Features) -> Tensor:
    """Classes of the rows that could be read, 0..k-1 again where one has lost all its images."""
    return torch.from_numpy(np.unique(task.labels[features.rows.numpy()], return_inverse=True)[1])


def _notes(candidate: Candidate, features: Features) -> tuple[str, ...]:
    logits = features.parts.get("source_logits")
    if logits is not None and logits.shape[1] == 1:
        return (f"{candidate.name}: its source head has a single class, so it predicts nothing.",)
    return ()


def _evaluate(
    metric: Metric, inputs: Sequence[Any], labels: Tensor, *, seed: int | None
) -> tuple[tuple[float, ...], list[np.ndarray] | None]:
    """The score, or the terms of a zoo-relative one, and the influence on each unless ``seed`` is None."""
    # A person's own function may change what it is given, or ask for gradients of it: it gets a copy
    own = {**METRICS, **VARIANTS}.get(metric.name) is not metric
    given = tuple(one.clone() if own and isinstance(one, Tensor) else one for one in inputs)
    if seed is None or metric.is_static:
        return _as_floats(metric.fn(*given)), None
    if metric.influence is not None:
        value, influence = metric.influence(*given)
        return (float(value),), [influence.detach().cpu().numpy()]
    values = _as_floats(metric.fn(*given))

    @cache
    def on_rows(packed: bytes) -> tuple[float, ...]:
        kept = torch.from_numpy(np.frombuffer(packed, dtype=np.int64).copy())
        parts = zip(metric.needs, inputs, strict=True)
        return _as_floats(metric.fn(*(one[kept] if need in PER_ROW else one for need, one in parts)))

    def term(q: int, rows: np.ndarray) -> float:
        return on_rows(rows.astype(np.int64).tobytes())[q]

    try:
        numbers = labels.cpu().numpy()
        influences = [jackknife_influence(partial(term, q), numbers, seed=seed) for q in range(len(values))]
    except Exception as error:  # the score stands even where subsets of the rows cannot be scored
        logger.warning("No interval for %r: %s", metric.name, error)
        return values, None
    return values, influences


def _as_floats(score: Any) -> tuple[float, ...]:
    return tuple(map(float, score)) if isinstance(score, tuple) else (float(score),)
