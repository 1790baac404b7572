"""What a selection says in words and numbers, before any markup."""

from hf_zoosel.ranking.content import Column, Content, counted, one_line
from hf_zoosel.selection.record import SourceSelection, TargetClass

_N_ROWS = 20  # chosen classes shown; all of them are in the record
_N_BADLY = 5  # badly served target classes named
PLURALS = {"class": "classes", "cluster": "clusters", "sample": "samples"}


def content_of(selection: SourceSelection) -> Content:
    """Put a selection into words, still free of any markup."""
    return Content(one_line(_title(selection)), _columns(selection), _legend(selection), _sections(selection))


def _title(selection: SourceSelection) -> str:
    n_samples = selection.details.get("n_samples")
    if selection.ranked:
        names = PLURALS[selection.unit] if selection.unit != "sample" else "classes"
        chosen = f"{selection.n_chosen:,} of {len(selection.ranked):,} {names}"
    elif isinstance(n_samples, int):
        chosen = f"{len(selection):,} of {counted(n_samples, 'sample')}"
    else:
        chosen = counted(len(selection), "sample")
    return f"{chosen} of {selection.source} for {selection.target}, by {selection.method}"


def _columns(selection: SourceSelection) -> list[Column]:
    return _class_columns(selection) if selection.ranked else _target_columns(selection)


def _target_columns(selection: SourceSelection) -> list[Column]:
    """Columns of a selection of samples, which are too many to list: one row per target class, best served first."""
    shown = sorted(selection.coverage, key=lambda one: (one.distance, one.name))[:_N_ROWS]
    served = [(one.share_well or 0) + (one.share_badly or 0) for one in shown]
    judged = any(one.share_well is not None for one in shown)
    return [
        Column("place", [str(place + 1) for place in range(len(shown))]),
        Column("target class", [one_line(one.name) for one in shown], left=True),
        *([Column("from chosen", [f"{100 * share:.1f} %" for share in served])] if judged else []),
        Column("nearest chosen", [one_line(one.nearest) for one in shown], left=True),
        Column("distance", [f"{one.distance:.3f}" for one in shown]),
        Column("samples", [f"{one.count:,}" for one in shown]),
    ]


def _class_columns(selection: SourceSelection) -> list[Column]:
    shown = selection.classes[:_N_ROWS]
    return [
        Column("rank", [str(rank + 1) for rank in range(len(shown))]),
        Column("cluster" if selection.unit == "cluster" else "class", [one_line(c.name) for c in shown], left=True),
        Column("mass", [f"{c.mass:#.4g}" for c in shown]),
        Column("share", [f"{100 * c.share:.2f} %" for c in shown]),
        Column("nearest target class", [one_line(c.nearest) for c in shown], left=True),
        Column("distance", [f"{c.distance:.3f}" for c in shown]),
        Column("samples", [f"{c.count:,}" for c in shown]),
    ]


def _legend(selection: SourceSelection) -> str:
    parts = []
    if len(selection.classes) > _N_ROWS:
        parts.append(f"The first {_N_ROWS} of {len(selection.classes):,}; all are in `classes`.")
    if selection.ranked:
        parts.append(f"Effective number of source classes: {selection.n_effective:.1f} of {len(selection.ranked):,}.")
    elif selection.coverage:
        parts.append(f"Effective number of source samples: {selection.n_effective:,.1f}.")
        if len(selection.coverage) > _N_ROWS:
            parts.append(f"The best served {_N_ROWS} of {len(selection.coverage):,} target classes.")
    if selection.transport_cost is not None:
        parts.append(f"Mean cost of transport: {selection.transport_cost:.3g}.")
    between = "class means" if selection.ranked else "a class mean and a sample"
    parts.append(f"distance: 1 - cosine of {between}.")
    if selection.near_limit is not None:
        what = "classes" if selection.ranked else "samples"
        parts.append(f"95 % of source {what} have another within {selection.near_limit:.3f}.")
    return one_line(" ".join(parts))


def _sections(selection: SourceSelection) -> list[tuple[str, list[str]]]:
    what = "class" if selection.ranked else "sample"
    badly = [_badly(one, what) for one in selection.badly_served[:_N_BADLY]]
    if len(selection.badly_served) > _N_BADLY:
        badly.append(f"and {len(selection.badly_served) - _N_BADLY:,} more, see `badly_served`")
    of_all = counted(len(selection.coverage), "target class", "target classes")
    sections = [
        (f"Served badly: {len(selection.badly_served):,} of {of_all}", badly),
        ("Before training", [selection.advice] if selection.coverage else []),
        ("Notes", list(selection.notes)),
    ]
    return [(heading, list(map(one_line, items))) for heading, items in sections if items]


def _badly(one: TargetClass, what: str) -> str:
    text = f"{one.name}: nearest chosen {what} {one.nearest} at {one.distance:.3f}"
    if one.least_distance < one.distance:
        text += f", nearest of all at {one.least_distance:.3f}"
    return text
