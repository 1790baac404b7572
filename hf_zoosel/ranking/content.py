"""What a ranking says in words and numbers, before any markup."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from hf_zoosel.ranking.record import CandidateResult, Ranking, Score

_N_IMAGES = 5  # skipped images named one by one
_LONGEST = 400  # characters of a reason or note; all of it is in the record


class Column(NamedTuple):
    """One column of the table, a cell for each candidate that did not fail."""

    name: str
    cells: list[str]
    left: bool = False  # left-aligned, as names and scores are


class Content(NamedTuple):
    """What every form of the table says."""

    title: str
    columns: list[Column]
    legend: str
    sections: list[tuple[str, list[str]]]  # heading, items


def content_of(ranking: Ranking) -> Content:
    """Put a ranking into words, still free of any markup."""
    title = (
        f"{ranking.task}: {counted(len(ranking), 'candidate')} by {ranking.metrics[0]}, "
        f"{counted(ranking.n_samples, 'image')} of {counted(ranking.n_classes, 'class', 'classes')}"
    )
    return Content(one_line(title), _columns(ranking), _legend(ranking), _sections(ranking))


def level_of(ranking: Ranking) -> str:
    """Write the level of the intervals as "95% ", or "" where the settings do not hold it."""
    level = ranking.settings.get("level")
    return f"{100 * level:g}% " if isinstance(level, float) else ""


def _columns(ranking: Ranking) -> list[Column]:
    shown = [candidate for candidate in ranking if not candidate.failed]
    scores = [Column(one_line(metric), _score_cells(metric, shown), left=True) for metric in ranking.metrics]
    chances = [Column("p(best)", _cells(".2f", _chances(ranking)))] if _has_chances(ranking) else []
    return [
        Column("rank", _cells("d", [c.rank for c in shown])),
        Column("candidate", [one_line(c.name) for c in shown], left=True),
        scores[0],
        *chances,  # they are of the first metric
        *scores[1:],
        Column("parameters", ["-" if c.n_parameters is None else short_count(c.n_parameters) for c in shown]),
        Column("width", _cells("d", [c.n_features for c in shown])),
        Column("seconds", _cells(".1f", [c.seconds for c in shown])),
    ]


def _chances(ranking: Ranking) -> list[float | None]:
    scores = [candidate.scores.get(ranking.metrics[0]) for candidate in ranking if not candidate.failed]
    return [None if score is None else score.p_best for score in scores]


def _has_chances(ranking: Ranking) -> bool:
    return any(chance is not None for chance in _chances(ranking))


def _cells(spec: str, values: Sequence[float | None]) -> list[str]:
    return ["-" if value is None else f"{value:{spec}}" for value in values]


def _score_cells(metric: str, shown: list[CandidateResult]) -> list[str]:
    scores = [candidate.scores.get(metric) for candidate in shown]
    spec = _number_format([score for score in scores if score is not None])
    return ["-" if score is None else _score_cell(score, spec) for score in scores]


def _score_cell(score: Score, spec: str) -> str:
    value = f"{score.value:{spec}}"
    if score.low is None or score.high is None:
        return value
    return f"{value} [{score.low:{spec}}, {score.high:{spec}}]"


def _legend(ranking: Ranking) -> str:
    parts = []
    if any(score.low is not None for candidate in ranking for score in candidate.scores.values()):
        parts.append(f"[low, high]: {level_of(ranking)}bootstrap interval over the images.")
    if _has_chances(ranking):
        parts.append(f"p(best): share of resamples in which the candidate comes first by {ranking.metrics[0]}.")
    return one_line(" ".join(parts))


def _sections(ranking: Ranking) -> list[tuple[str, list[str]]]:
    missing = [
        f"{c.name}: {metric}: {c.skipped.get(metric, 'was not computed')}"
        for c in ranking
        if not c.failed
        for metric in ranking.metrics
        if metric not in c.scores
    ]
    images = [f"row {image.row}: {image.reason}" for image in ranking.skipped_images[:_N_IMAGES]]
    if len(ranking.skipped_images) > _N_IMAGES:
        images.append(f"and {len(ranking.skipped_images) - _N_IMAGES} more, see `skipped_images`")
    sections = [
        (f"Failed: {counted(len(ranking.failures), 'candidate')}", [f"{c.name}: {c.error}" for c in ranking.failures]),
        ("No score", missing),
        (f"Skipped: {counted(len(ranking.skipped_images), 'image')}", images),
        ("Notes", list(ranking.notes)),
    ]
    return [(heading, list(map(one_line, items))) for heading, items in sections if items]


def _number_format(scores: list[Score]) -> str:
    """Choose a number format that shows two digits of the typical interval's width, 3 to 6 decimals."""
    largest = max((abs(score.value) for score in scores), default=1.0)
    if 0 < largest < 1e-3:
        return ".2e"
    widths = sorted(score.high - score.low for score in scores if score.low is not None and score.high is not None)
    width = widths[len(widths) // 2] if widths else 0.0
    fewest = 3 if largest < 100 else 1
    return f".{min(max(1 - math.floor(math.log10(width)), fewest), 6) if width > 0 else fewest}f"


def short_count(number: int) -> str:
    """Write a count of parameters as 5.3 M.

    Example:
        >>> short_count(5_288_548), short_count(999_999), short_count(87)
        ('5.3 M', '1.0 M', '87')
    """
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.99995 * size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Write a number of things, one of them in the singular."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def one_line(text: str) -> str:
    """Drop line breaks and control characters, and the rest of what is very long."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 4] + " ..."
