"""From what is known of a candidate to the arguments of a metric, or the reason why there are none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hf_zoosel.features import Features
from hf_zoosel.metrics import Metric
from hf_zoosel.metrics.rsa import RankedReference, rank_reference, rsa
from hf_zoosel.zoo import Candidate, CandidateError, SourceStats


class MissingNeedError(ValueError):
    """A candidate cannot meet a metric's need; the message says why."""


@dataclass
class Reference:
    """The task's rows by a reference network, ranked once for all candidates that could read the same rows.

    Attributes:
        features: Of the reference network, or what kept it from having any.
    """

    features: Features | CandidateError
    _ranked: dict[bytes, RankedReference] = field(default_factory=dict)

    def at(self, rows: Tensor) -> Tensor:
        """The reference's features of these rows of the task, ``(n, r)``."""
        if isinstance(self.features, CandidateError):
            raise MissingNeedError(f"the reference network failed: {self.features}")
        position = {row: number for number, row in enumerate(self.features.rows.tolist())}
        if not position.keys() >= set(rows.tolist()):
            raise MissingNeedError("the reference network could not read the same images")
        return self.features.features[[position[row] for row in rows.tolist()]]

    def ranked_at(self, rows: Tensor) -> RankedReference:
        """The same, ranked."""
        key = rows.numpy().tobytes()
        if key not in self._ranked:
            self._ranked[key] = rank_reference(self.at(rows))
        return self._ranked[key]


@dataclass(frozen=True)
class Extras:
    """What metrics need beside a candidate's own view of the task.

    Attributes:
        reference: The reference network's view of it; None where no metric needs one.
        sources: Statistics of each candidate's source classes, by its name, or why there are none.
    """

    reference: Reference | None = None
    sources: Mapping[str, SourceStats | CandidateError] = field(default_factory=dict)


def inputs_of(metric: Metric, candidate: Candidate, features: Features, labels: Tensor, extras: Extras) -> list[Any]:
    """The arguments of ``metric.fn`` for one candidate, in order.

    Raises:
        MissingNeedError: If the candidate cannot meet a need.
    """
    facts: dict[str, Callable[[], Any]] = {
        "labels": lambda: labels,
        "source_probs": lambda: _source_probs(features),
        "reference": lambda: _reference(metric, extras, features.rows),
        "source_means": lambda: _source(candidate, extras).means,
        "source_counts": lambda: _source(candidate, extras).counts,
        "source_features": lambda: _source_sample(candidate, extras)[0],
        "source_labels": lambda: _source_sample(candidate, extras)[1],
        "n_parameters": lambda: features.n_parameters,
        "source_accuracy": lambda: _source_accuracy(candidate),
        "identity": lambda: f"{candidate.name} {candidate.revision}",
    }
    return [facts[need]() if need in facts else _part(features, need) for need in metric.needs]


def _part(features: Features, part: str) -> Tensor:
    if part not in features.parts:
        raise MissingNeedError(features.absent.get(part, f"its {part.replace('_', ' ')} were not computed"))
    return features.parts[part]


def _source_probs(features: Features) -> Tensor:
    logits = features.parts.get("source_logits")
    if logits is None:
        raise MissingNeedError("it has no source head, and this metric needs source_probs")
    if logits.shape[1] < 2:
        raise MissingNeedError("its source head has a single class, which predicts nothing")
    return logits.softmax(dim=1)


def _reference(metric: Metric, extras: Extras, rows: Tensor) -> Tensor | RankedReference:
    if extras.reference is None:
        raise MissingNeedError("there is no reference network. Pass `reference=`.")
    return extras.reference.ranked_at(rows) if metric.fn is rsa else extras.reference.at(rows)


def _source(candidate: Candidate, extras: Extras) -> SourceStats:
    stats = extras.sources.get(candidate.name)
    if isinstance(stats, SourceStats):
        return stats
    raise MissingNeedError(
        "it was published without statistics of its source classes. Pass its source data as `source=`."
        if stats is None
        else f"its source data could not be used: {stats}"
    )


def _source_sample(candidate: Candidate, extras: Extras) -> tuple[Tensor, Tensor]:
    stats = _source(candidate, extras)
    if stats.features is None or stats.labels is None:
        raise MissingNeedError("its source statistics hold no sample of features. Pass its source data as `source=`.")
    return stats.features, stats.labels


def _source_accuracy(candidate: Candidate) -> float:
    if candidate.source_accuracy is None:
        raise MissingNeedError("its accuracy on its source data is not published with it")
    return candidate.source_accuracy
