"""A selection as data frames: one row per source class, one row per target class."""

from typing import TYPE_CHECKING

from hf_zoosel.selection.record import SourceSelection

if TYPE_CHECKING:
    import pandas as pd

_SOURCE_TYPES = {"rank": "int64", "index": "int64", "count": "int64", "chosen": "bool"} | dict.fromkeys(
    ("mass", "share", "distance"), "float64"
)
_TARGET_TYPES = {"index": "int64", "count": "int64", "well_served": "boolean"} | dict.fromkeys(
    ("distance", "quantile", "least_distance", "share_well", "share_badly"), "float64"
)


def to_pandas(selection: SourceSelection) -> "pd.DataFrame":
    """Return one row per source class, chosen or not, in order of importance."""
    import pandas as pd

    ranked = selection.ranked
    columns: dict[str, list[object]] = {
        "rank": list(range(1, len(ranked) + 1)),
        "class": [c.name for c in ranked],
        "chosen": [place < selection.n_chosen for place in range(len(ranked))],
    }
    for field in ("index", "mass", "share", "count", "nearest", "distance"):
        columns[field] = [getattr(c, field) for c in ranked]
    return pd.DataFrame(columns).astype(_SOURCE_TYPES)


def coverage_to_pandas(selection: SourceSelection) -> "pd.DataFrame":
    """Return one row per target class in the target's order."""
    import pandas as pd

    coverage, limit = selection.coverage, selection.near_limit
    columns: dict[str, list[object]] = {"class": [t.name for t in coverage]}
    for field in ("index", "count", "nearest", "distance", "quantile", "least_distance", "share_well", "share_badly"):
        columns[field] = [getattr(t, field) for t in coverage]
    columns["well_served"] = [None if limit is None else t.distance <= limit for t in coverage]
    columns["served_by"] = ["; ".join(server.name for server in t.served_by) for t in coverage]
    return pd.DataFrame(columns).astype(_TARGET_TYPES)
