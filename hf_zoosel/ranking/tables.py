"""A ranking as a data frame."""

from typing import TYPE_CHECKING

from hf_zoosel.ranking.record import Ranking

if TYPE_CHECKING:
    import pandas as pd


def to_pandas(ranking: Ranking) -> "pd.DataFrame":
    """Return one row per candidate, failed ones too."""
    import pandas as pd

    columns: dict[str, list[object]] = {
        "rank": [c.rank for c in ranking],
        "candidate": [c.name for c in ranking],
    }
    for metric in ranking.metrics:
        scores = [c.scores.get(metric) for c in ranking]
        columns[metric] = [score.value if score else None for score in scores]
        columns[f"{metric}_low"] = [score.low if score else None for score in scores]
        columns[f"{metric}_high"] = [score.high if score else None for score in scores]
        columns[f"{metric}_p_best"] = [score.p_best if score else None for score in scores]
    types = dict.fromkeys(list(columns)[2:], "float64") | {"seconds": "float64", "rank": "Int64"}
    for field in ("n_parameters", "n_features", "n_samples"):
        columns[field], types[field] = [getattr(c, field) for c in ranking], "Int64"
    for field in ("seconds", "source", "revision", "error"):
        columns[field] = [getattr(c, field) for c in ranking]
    columns["skipped"] = ["; ".join(f"{m}: {why}" for m, why in c.skipped.items()) or None for c in ranking]
    return pd.DataFrame(columns).astype(types)
