"""What some metrics need beside a candidate's own view of the task, gathered before anything is scored."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from hf_zoosel.features import Features, FeatureStore, Runtime, Team, extract
from hf_zoosel.features.reference import Recipe, trained_on
from hf_zoosel.metrics import Metric
from hf_zoosel.scoring.inputs import Extras, Reference
from hf_zoosel.tasks import Task
from hf_zoosel.zoo import Candidate, CandidateError, SourceStats, Spec, resolve

_SAMPLE_NEEDS = frozenset({"source_features", "source_labels"})
_SOURCE_NEEDS = _SAMPLE_NEEDS | {"source_means", "source_counts"}


def gather_extras(
    metrics: Sequence[Metric],
    candidates: Sequence[Candidate],
    task: Task,
    *,
    reference: Spec | None,
    source: Task | None,
    store: FeatureStore,
    runtime: Runtime,
    team: Team,
    seed: int,
    progress: bool,
) -> Extras:
    """Run the reference network and the source data, where a metric that was asked for needs them.

    Args:
        metrics: What was asked for.
        candidates: Resolved.
        task: The target.
        reference: The reference network; a small one trained on the target if None.
        source: A sample of the data the candidates were trained on; what they were published with if None.
        store: Where features are found and kept.
        runtime: How networks run.
        team: The processes that share the work.
        seed: Of the small network's training.
        progress: Whether to show progress bars.
    """
    needs = {need for metric in metrics for need in metric.needs}
    options: Any = {"store": store, "runtime": runtime, "team": team, "progress": progress}
    seen = None
    if "reference" in needs and team.is_main:  # it alone scores; each process would train a network of its own
        seen = Reference(_reference(reference, task, seed, options | {"team": Team(0, 1, team.device)}))
    sources: dict[str, SourceStats | CandidateError] = {}
    if needs & _SOURCE_NEEDS and source is not None:
        for candidate, outcome in extract(candidates, source, **options):
            sources[candidate.name] = _statistics(outcome, source, sample=bool(needs & _SAMPLE_NEEDS))
    elif needs & _SOURCE_NEEDS:
        sources = {one.name: _published(one) for one in candidates if one.source_stats is not None}
    return Extras(seen, sources)


def _reference(spec: Spec | None, task: Task, seed: int, options: dict[str, Any]) -> Features | CandidateError:
    try:
        device = options["runtime"].device
        candidate = trained_on(task, Recipe(seed=seed), device) if spec is None else resolve(spec, "reference")
    except Exception as error:  # a configuration can be wrong in ways only its library knows
        return error if isinstance(error, CandidateError) else CandidateError(f"{type(error).__name__}: {error}")
    ((_, outcome),) = extract([candidate], task, **options)
    return outcome


def _statistics(outcome: Features | CandidateError, source: Task, *, sample: bool) -> SourceStats | CandidateError:
    """Statistics under one candidate; the sample itself, large as it is, only where a metric asks for it."""
    if isinstance(outcome, CandidateError):
        return outcome
    if not len(outcome.rows):
        return CandidateError("none of its images could be read.")
    statistics = SourceStats.of(outcome.features, torch.from_numpy(source.labels[outcome.rows.numpy()]))
    return statistics if sample else replace(statistics, features=None, labels=None)


def _published(candidate: Candidate) -> SourceStats | CandidateError:
    if candidate.source_stats is None:
        return CandidateError("it was published without any.")
    try:
        return candidate.source_stats()
    except CandidateError as error:
        return error
