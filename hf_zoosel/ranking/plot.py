"""Scores and their intervals as a picture; ``Ranking.plot`` imports this file, and with it matplotlib, when asked."""

import io
import os
import textwrap
from pathlib import Path
from typing import Any

from hf_zoosel.ranking.content import level_of
from hf_zoosel.ranking.record import CandidateResult, Ranking

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("`plot` needs matplotlib. Install it with `pip install hf-zoosel[plots]`.") from error

_MAX_PANELS = 6
_LINE = 40  # characters of a name on one line
_FIRST, _REST, _GREY = "#c8553d", "#2a6f97", "#666666"


class NotebookFigure(Figure):
    """A figure made without pyplot, so without global state, that still appears as a notebook cell's result."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def plot_ranking(
    ranking: Ranking, *, metric: str | None = None, path: str | os.PathLike[str] | None = None
) -> NotebookFigure:
    """Draw a dot and an interval for each score: a row per candidate, a panel per metric, at most six."""
    if metric is not None:
        ranking = ranking.by(metric)
    metrics = ranking.metrics[:_MAX_PANELS] if metric is None else (metric,)
    shown = [c for c in ranking if not c.failed and any(m in c.scores for m in metrics)]
    if not shown:
        raise ValueError(f"`candidates` must include one with a score of {metrics}, got none. See `failures`.")

    names = [_folded(c.name) for c in shown]
    longest = max(len(line) for name in names for line in name.split("\n"))
    width = 1.4 + 0.085 * longest + max(2.5, 4.2 - 0.7 * len(metrics)) * len(metrics)
    caption = "\n".join(textwrap.fill(part, int(width * 14)) for part in _caption(ranking, metrics))
    height = 1.0 + 0.3 * len(shown) + 0.17 * (caption.count("\n") + 1)
    figure = NotebookFigure(figsize=(width, height), dpi=150, layout="constrained")
    panels = list(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0])
    for name, panel in zip(metrics, panels, strict=True):
        _draw_panel(panel, name, shown)
    _name_rows(panels[0], names)
    _write_chances(panels[-1], ranking.metrics[0], shown)
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=8, color=_GREY, parse_math=False)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure


def _draw_panel(panel: Axes, metric: str, shown: list[CandidateResult]) -> None:
    for y, candidate in enumerate(shown):
        if y % 2 == 0:
            panel.axhspan(y - 0.5, y + 0.5, color="#f3f5f7", zorder=0, linewidth=0)
        color = _FIRST if candidate.rank == 1 else _REST
        if metric not in candidate.scores:
            panel.text(0.5, y, "no score", color=_GREY, fontsize=8, ha="center", va="center", style="italic",
                       transform=panel.get_yaxis_transform())  # fmt: skip
            continue
        score = candidate.scores[metric]
        if score.low is not None and score.high is not None:
            panel.hlines(y, score.low, score.high, color=color, linewidth=2, alpha=0.55, zorder=2)
        panel.plot(score.value, y, "o", color=color, markersize=5.5, zorder=3)
    panel.set_ylim(len(shown) - 0.5, -0.5)
    panel.set_title(metric, fontsize=10, fontweight="bold", parse_math=False)
    panel.locator_params(axis="x", nbins=5)
    panel.margins(x=0.08)
    panel.tick_params(axis="x", labelsize=8, color=_GREY)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color="#d9dde1", linewidth=0.6, zorder=1)
    for side in ("top", "left", "right"):
        panel.spines[side].set_visible(False)


def _name_rows(panel: Axes, names: list[str]) -> None:
    panel.set_yticks(range(len(names)), names)
    for name, label in zip(names, panel.get_yticklabels(), strict=True):
        label.set_fontsize(7.5 if "\n" in name else 9)
        label.set_parse_math(False)


def _write_chances(panel: Axes, metric: str, shown: list[CandidateResult]) -> None:
    """Write p(best) of the ordering metric down the right edge, if it is known."""
    chances = [c.scores[metric].p_best if metric in c.scores else None for c in shown]
    if all(chance is None for chance in chances):
        return
    beside: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": _GREY, "annotation_clip": False}
    panel.annotate("p(best)", (1, 1), xycoords="axes fraction", xytext=(8, 6), **beside)
    for y, chance in enumerate(chances):
        text = "-" if chance is None else f"{chance:.2f}"
        panel.annotate(text, (1, y), xycoords=panel.get_yaxis_transform(), xytext=(8, 0), va="center", **beside)


def _caption(ranking: Ranking, metrics: tuple[str, ...]) -> list[str]:
    parts = [
        f"{ranking.task}: {ranking.n_samples:,} images of {ranking.n_classes:,} classes. Ordered by "
        f"{ranking.metrics[0]}. Lines: {level_of(ranking)}bootstrap intervals over the images."
    ]
    if len(metrics) > 1:
        parts[0] += f" p(best): share of resamples first by {ranking.metrics[0]}."
    if ranking.failures:
        parts.append(f"Failed: {', '.join(_shortened(c.name) for c in ranking.failures)}.")
    if len(metrics) > 1 and (left_out := ranking.metrics[len(metrics) :]):
        parts.append(f"Not drawn: {', '.join(left_out)}.")
    return parts


def _folded(name: str) -> str:
    """Break a long name into two lines, behind a separator if there is one."""
    name = _shortened(name)
    if len(name) <= _LINE:
        return name
    cut = max(name.rfind(separator, len(name) - _LINE - 1, _LINE) for separator in "/_.-") + 1 or _LINE
    return f"{name[:cut]}\n{name[cut:]}"


def _shortened(name: str) -> str:
    """Keep both ends of a very long name: the owner and the variant tell candidates apart."""
    name = " ".join(name.split())
    return name if len(name) <= 2 * _LINE - 8 else f"{name[: _LINE - 6]}...{name[-_LINE + 5 :]}"
