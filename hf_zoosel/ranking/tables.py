"""A ranking as text, rich renderable, Markdown, HTML and data frame.

``Ranking`` imports this file, and with it rich, when it is shown.
"""

from typing import TYPE_CHECKING

from rich.console import RenderableType

from hf_zoosel.ranking import render
from hf_zoosel.ranking.content import content_of
from hf_zoosel.ranking.record import Ranking

if TYPE_CHECKING:
    import pandas as pd


def to_text(ranking: Ranking) -> str:
    """Return plain text as wide as the terminal, or up to 200 columns where there is none."""
    return render.to_text(content_of(ranking))


def to_rich(ranking: Ranking) -> RenderableType:
    """Return a renderable that fits itself to the console and never cuts anything off."""
    return render.to_rich(content_of(ranking))


def to_markdown(ranking: Ranking) -> str:
    """Return GitHub Markdown."""
    return render.to_markdown(content_of(ranking))


def to_html(ranking: Ranking) -> str:
    """Return an HTML fragment; every name and reason is escaped."""
    return render.to_html(content_of(ranking))


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
