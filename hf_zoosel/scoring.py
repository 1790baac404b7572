"""From one candidate's features to its scores and their bootstrap replicates."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.features import Features
from hf_zoosel.metrics import Metric
from hf_zoosel.ranking import CandidateResult, Resampler, Score, jackknife_influence
from hf_zoosel.tasks import Task
from hf_zoosel.zoo import Candidate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """One candidate's result, still without rank; the replicates of its scores by metric; what to tell a person."""

    result: CandidateResult
    replicates: Mapping[str, np.ndarray] = field(default_factory=dict)
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
        n_bootstrap: Replicates of each score; 0 for none.
        seed: Seeds them, and the groups of metrics without a closed-form influence.
    """
    labels = _labels(task, features)
    resampled = n_bootstrap > 0 and int(labels.bincount().max()) > 1  # one image a class: nothing to draw again
    resampler = Resampler(labels.numpy(), n_bootstrap, seed) if resampled else None
    scores: dict[str, Score] = {}
    skipped: dict[str, str] = {}
    replicates: dict[str, np.ndarray] = {}
    for metric in metrics:
        try:
            inputs = _inputs(metric, features)
            value, influence = _evaluate(metric, inputs, labels, seed=seed if resampler is not None else None)
        except Exception as error:  # a metric that fails on one candidate must not take the others' scores with it
            logger.debug("%s of %s failed", metric.name, candidate.name, exc_info=True)
            skipped[metric.name] = str(error).splitlines()[0] if str(error) else type(error).__name__
            continue
        if not math.isfinite(value):
            skipped[metric.name] = f"the score is not finite ({value})"
            continue
        scores[metric.name] = Score(value)
        if resampler is not None and influence is not None:
            try:
                replicates[metric.name] = resampler.replicates(value, influence)
            except ValueError as error:  # the score stands without its interval
                logger.warning("No interval for %r: %s", metric.name, error)
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
    return Scored(result, replicates, _notes(candidate, features))


def _labels(task: Task, features: Features) -> Tensor:
    """Classes of the rows that could be read, 0..k-1 again where one has lost all its images."""
    return torch.from_numpy(np.unique(task.labels[features.rows.numpy()], return_inverse=True)[1])


def _notes(candidate: Candidate, features: Features) -> tuple[str, ...]:
    if features.source_probs is not None and features.source_probs.shape[1] == 1:
        return (f"{candidate.name}: its source head has a single class, so it predicts nothing.",)
    return ()


def _inputs(metric: Metric, features: Features) -> list[Tensor]:
    have = {"features": features.features, "source_probs": features.source_probs}
    if "source_probs" in metric.needs:
        if features.source_probs is None:
            raise ValueError("it has no source head, and this metric needs source_probs")
        if features.source_probs.shape[1] < 2:
            raise ValueError("its source head has a single class, which predicts nothing")
    return [tensor for need in metric.needs if (tensor := have[need]) is not None]


def _evaluate(
    metric: Metric, inputs: Sequence[Tensor], labels: Tensor, *, seed: int | None
) -> tuple[float, np.ndarray | None]:
    """The score, and its influence unless ``seed`` is None."""
    # A person's own function may change what it is given, or ask for gradients of it: it gets a copy
    given = tuple(t.clone() for t in (*inputs, labels)) if metric.influence is None else (*inputs, labels)
    if seed is None:
        return float(metric.fn(*given)), None
    if metric.influence is not None:
        value, influence = metric.influence(*given)
        return float(value), influence.detach().cpu().numpy()
    value = float(metric.fn(*given))

    def on_rows(rows: np.ndarray) -> float:
        kept = torch.from_numpy(rows).to(labels.device)
        return float(metric.fn(*(tensor[kept] for tensor in inputs), labels[kept]))

    try:
        return value, jackknife_influence(on_rows, labels.cpu().numpy(), seed=seed)
    except Exception as error:  # the score stands even where subsets of the rows cannot be scored
        logger.warning("No interval for %r: %s", metric.name, error)
        return value, None
