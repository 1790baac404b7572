"""The frozen records of a ranking: a score, a candidate's result, and the whole.

Records compare by value, survive pickle and ``copy.deepcopy`` (they travel between processes), and hold no
number that is not finite.
"""

import difflib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_zoosel.ranking.mapping import FrozenMapping
from hf_zoosel.ranking.shown import Shown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hf_zoosel.ranking.content import Content

Setting = str | int | float | bool | None
_EMPTY: FrozenMapping[Any] = FrozenMapping()


@dataclass(frozen=True, slots=True)
class Score:
    """A candidate's score by one metric.

    Args:
        value: The score, higher is better.
        low: Lower end of its bootstrap interval, None where there is none.
        high: Upper end of its bootstrap interval.
        p_best: Share of resamples in which the candidate comes first by this metric, in [0, 1].
    """

    value: float
    low: float | None = None
    high: float | None = None
    p_best: float | None = None


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """What is known of one candidate on one task.

    Args:
        name: The candidate's name.
        rank: Place by the ranking's first metric, from 1; None without a score of it.
        scores: Metric -> score.
        skipped: Metric -> why it has no score.
        error: Why the candidate failed as a whole, None where it did not.
        n_parameters: Parameters of the model.
        n_features: Width of its features.
        n_samples: Rows its scores rest on.
        seconds: Time spent on it.
        source: What it was resolved from: a Hub id, a folder, a name; None for a module in memory.
        revision: Resolved revision of the checkpoint.
    """

    name: str
    rank: int | None = None
    scores: Mapping[str, Score] = _EMPTY
    skipped: Mapping[str, str] = _EMPTY
    error: str | None = None
    n_parameters: int | None = None
    n_features: int | None = None
    n_samples: int | None = None
    seconds: float | None = None
    source: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", FrozenMapping(self.scores))
        object.__setattr__(self, "skipped", FrozenMapping(self.skipped))

    @property
    def failed(self) -> bool:
        """Whether the candidate failed as a whole."""
        return self.error is not None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class SkippedImage:
    """An image left out: its row in the data set and why."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Ranking(Shown):
    """Candidates in order of how well they suit a task.

    Args:
        task: Name of the task.
        n_samples: Rows of the task that were scored.
        n_classes: Classes of the task.
        metrics: Names of the metrics; the first one orders.
        candidates: In order of rank; those without a score of the first metric follow, failed ones last
            (see ``rank_candidates``).
        settings: What the result depends on: seed, max_per_class, level, n_bootstrap, device, dtype ...
        skipped_images: Images that could not be read.
        notes: What a person should know about this result.
        versions: Package -> version that computed it.

    Raises:
        ValueError: If there is no metric, two candidates have one name, a score belongs to no metric of the
            ranking, or a number is not finite.
        TypeError: If a setting is not a string, a number, a bool or None.

    Example:
        >>> results = [CandidateResult("a", scores={"lfc": Score(0.2)}), CandidateResult("b", error="not found")]
        >>> ranking = Ranking("digits", 100, 10, metrics=("lfc",), candidates=in_order_of("lfc", results))
        >>> ranking.best.name, [c.error for c in ranking.failures]
        ('a', ['not found'])
    """

    task: str
    n_samples: int
    n_classes: int
    metrics: tuple[str, ...]
    candidates: tuple[CandidateResult, ...]
    settings: Mapping[str, Setting] = _EMPTY
    skipped_images: tuple[SkippedImage, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = _EMPTY

    def __post_init__(self) -> None:
        for field in ("metrics", "candidates", "skipped_images", "notes"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        for field in ("settings", "versions"):
            object.__setattr__(self, field, FrozenMapping(getattr(self, field)))
        _check(self)

    @property
    def best(self) -> CandidateResult:
        """The first candidate.

        Raises:
            ValueError: If no candidate has a score of the first metric; the reasons are quoted.
        """
        if not self.candidates or self.candidates[0].rank is None:
            reasons = "; ".join(f"{c.name}: {self.reason(c)}" for c in self.candidates) or "there is no candidate"
            raise ValueError(
                f"`candidates` must include one with a score of {self.metrics[0]!r}, got none: {reasons}."
            )
        return self.candidates[0]

    @property
    def failures(self) -> tuple[CandidateResult, ...]:
        """The candidates that failed as a whole, each with its ``error``."""
        return tuple(candidate for candidate in self.candidates if candidate.failed)

    def reason(self, candidate: CandidateResult) -> str:
        """Say in words why a candidate has no rank, "" if it has one."""
        if candidate.rank is not None:
            return ""
        if candidate.error is not None:
            return candidate.error
        metric = self.metrics[0]
        return candidate.skipped.get(metric, f"{metric} was not computed")

    def top(self, k: int) -> tuple[CandidateResult, ...]:
        """Return the first ``k`` ranked candidates, fewer where fewer have a rank.

        Raises:
            ValueError: If ``k`` is below 1.
        """
        if k < 1:
            raise ValueError(f"`k` must be at least 1, got {k}.")
        return tuple(candidate for candidate in self.candidates if candidate.rank is not None)[:k]

    def by(self, metric: str) -> "Ranking":
        """Return the same ranking ordered by another of its metrics, ranks recomputed.

        Raises:
            ValueError: If the ranking has no such metric.
        """
        if metric not in self.metrics:
            raise ValueError(f"`metric` must be one of {list(self.metrics)}, got {metric!r}.")
        others = tuple(other for other in self.metrics if other != metric)
        return replace(self, metrics=(metric, *others), candidates=in_order_of(metric, self.candidates))

    def __getitem__(self, candidate: str | int) -> CandidateResult:
        """Return a candidate by name or by position.

        Raises:
            KeyError: If no candidate has that name.
            IndexError: If the position is out of range.
        """
        if not isinstance(candidate, str):
            return self.candidates[candidate]
        names = [result.name for result in self.candidates]
        if candidate not in names:
            close = difflib.get_close_matches(candidate, names, n=1)
            raise KeyError(
                f"No candidate {candidate!r}. " + (f"Did you mean {close[0]!r}?" if close else f"Have {names}.")
            )
        return self.candidates[names.index(candidate)]

    def __contains__(self, candidate: object) -> bool:
        return any(candidate in (result, result.name) for result in self.candidates)

    def __iter__(self) -> Iterator[CandidateResult]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def agreement(self) -> "pd.DataFrame":
        """Say how alike every two metrics order the candidates.

        Returns:
            Kendall's tau-b of each two metrics over the candidates that have both scores, in [-1, 1], one row and one
            column a metric; 1 for the same order, NaN for fewer than two candidates or a metric that ties them all.

        Reference:
            Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).

        Example:
            >>> both = {"a": (0.3, 9.0), "b": (0.2, 7.0), "c": (0.1, 8.0)}
            >>> results = [CandidateResult(c, scores={"lfc": Score(x), "knn": Score(y)}) for c, (x, y) in both.items()]
            >>> ranking = Ranking("digits", 100, 10, metrics=("lfc", "knn"), candidates=in_order_of("lfc", results))
            >>> ranking.agreement().round(3)
                   lfc    knn
            lfc  1.000  0.333
            knn  0.333  1.000
        """
        from hf_zoosel.ranking.agreement import agreement

        return agreement(self)

    def concordance(self) -> float | None:
        """Say how alike all metrics together order the candidates that have every score.

        A metric that no candidate has a score of is left out.

        Returns:
            Kendall's W, corrected for ties, in [0, 1]; 1 where all orders are the same. None for fewer than two
            metrics or candidates, or where every metric ties all candidates.

        Reference:
            Kendall and Babington Smith, "The problem of m rankings", Annals of Mathematical Statistics 10 (1939).

        Example:
            >>> both = {"a": (0.3, 9.0), "b": (0.2, 7.0), "c": (0.1, 8.0)}
            >>> results = [CandidateResult(c, scores={"lfc": Score(x), "knn": Score(y)}) for c, (x, y) in both.items()]
            >>> Ranking("digits", 100, 10, ("lfc", "knn"), in_order_of("lfc", results)).concordance()
            0.75
        """
        from hf_zoosel.ranking.agreement import concordance

        return concordance(self)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row per candidate: ``rank``, ``candidate``, each metric with ``_low``, ``_high``, ``_p_best``."""
        from hf_zoosel.ranking.tables import to_pandas

        return to_pandas(self)

    def _content(self) -> "Content":
        from hf_zoosel.ranking.content import content_of

        return content_of(self)

    def __repr__(self) -> str:
        first = self.candidates[0].name if self.candidates and self.candidates[0].rank is not None else None
        return (
            f"Ranking(task={self.task!r}, metrics={self.metrics}, best={first!r}, "
            f"n_candidates={len(self)}, n_failed={len(self.failures)})"
        )

    def plot(self, metric: str | None = None, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draw scores and intervals, one panel per metric.

        Args:
            metric: Draw, and order by, this metric only.
            path: Also write the figure there; the ending says the format.

        Returns:
            The figure.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If the ranking has no such metric, or nothing to draw.
        """
        from hf_zoosel.ranking.plot import plot_ranking

        return plot_ranking(self, metric=metric, path=path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers, ready for JSON."""
        from hf_zoosel.ranking.storage import to_dict

        return to_dict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Ranking":
        """Read what ``to_dict`` returned.

        Raises:
            ValueError: If it is no ranking, a damaged one, or one of a newer version.
        """
        from hf_zoosel.ranking.storage import from_dict

        return from_dict(data)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the ranking as JSON, all of it or nothing; missing folders are made.

        Returns:
            Where it was written.
        """
        from hf_zoosel.ranking.storage import save

        return save(self, Path(path))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Ranking":
        """Read a ranking written by ``save``.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is no ranking, is damaged, or comes from a newer version.
        """
        from hf_zoosel.ranking.storage import load

        return load(Path(path))


def in_order_of(metric: str, candidates: Sequence[CandidateResult]) -> tuple[CandidateResult, ...]:
    """Sort by one metric, highest first, and number the ranks; equal scores share one (1, 1, 3)."""
    ranked = [c for c in candidates if not c.failed and metric in c.scores]
    ranked.sort(key=lambda c: (-c.scores[metric].value, c.name))
    others = [c for c in candidates if c.failed or metric not in c.scores]
    others.sort(key=lambda c: (c.failed, c.name))

    ranks: list[int] = []
    for position, candidate in enumerate(ranked):
        tied = position > 0 and candidate.scores[metric].value == ranked[position - 1].scores[metric].value
        ranks.append(ranks[-1] if tied else position + 1)
    return (
        *(replace(c, rank=rank) for c, rank in zip(ranked, ranks, strict=True)),
        *(replace(c, rank=None) for c in others),
    )


def _check(ranking: Ranking) -> None:
    """Refuse what a file could not hold or a table could not show."""
    if not ranking.metrics or len(set(ranking.metrics)) < len(ranking.metrics):
        raise ValueError(f"`metrics` must be different names, at least one, got {ranking.metrics}.")
    if len({c.name for c in ranking.candidates}) < len(ranking.candidates):
        raise ValueError(f"`candidates` must have different names, got {[c.name for c in ranking.candidates]}.")
    for candidate in ranking.candidates:
        for metric, score in candidate.scores.items():
            if metric not in ranking.metrics:
                raise ValueError(
                    f"`candidates` must be scored by {ranking.metrics}, got {metric!r} of {candidate.name!r}."
                )
            if not all(math.isfinite(x) for x in (score.value, score.low, score.high, score.p_best) if x is not None):
                raise ValueError(
                    f"`candidates` must have finite scores, got {score} of {candidate.name!r}. Use `rank_candidates`."
                )
    for name, setting in ranking.settings.items():
        if not isinstance(setting, Setting):
            raise TypeError(f"`settings` must be strings, numbers, bools or None, got {setting!r} for {name!r}.")
        if isinstance(setting, float) and not math.isfinite(setting):
            raise ValueError(f"`settings` must be finite, got {setting} for {name!r}. Use None.")
