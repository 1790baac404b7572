"""A selection as a picture; ``SourceSelection.plot`` imports this file, and with it matplotlib, when asked."""

import os
import textwrap
from pathlib import Path

import numpy as np

from hf_zoosel.ranking.content import counted
from hf_zoosel.selection.record import SourceSelection

try:
    from matplotlib.axes import Axes

    from hf_zoosel.ranking.plot import NotebookFigure
except ImportError as error:
    raise ImportError("`plot` needs matplotlib. Install it with `pip install hf-zoosel[plots]`.") from error

_N_BARS = 20
_LINE = 34  # characters of a name
_CHOSEN, _OTHER, _LIMIT, _GREY = "#2a6f97", "#c9d2da", "#c8553d", "#666666"


def plot_selection(selection: SourceSelection, *, path: str | os.PathLike[str] | None = None) -> NotebookFigure:
    """Draw three panels: the first chosen classes, the masses of all, the target classes' distances.

    Of samples, which are too many to name, two: the masses of those chosen, and the target classes' distances.
    """
    if not (selection.ranked or selection.weights) or not selection.coverage:
        raise ValueError("`selection` must hold source and target classes, got rows alone. Use its `rows`.")
    n_bars = min(selection.n_chosen, _N_BARS)
    figure = NotebookFigure(figsize=(13, 2.2 + 0.2 * max(n_bars, 8)), dpi=150, layout="constrained")
    if selection.ranked:
        bars, curve, target = panels = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
        _draw_bars(bars, selection, n_bars)
        _draw_masses(curve, selection)
    else:
        curve, target = panels = figure.subplots(1, 2)
        _draw_weights(curve, selection)
    _draw_target(target, selection)
    for panel in panels:
        panel.tick_params(labelsize=8, color=_GREY)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(
        textwrap.fill(_caption(selection), 170), x=0.01, ha="left", fontsize=8, color=_GREY, parse_math=False
    )
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure


def _draw_bars(panel: Axes, selection: SourceSelection, n_bars: int) -> None:
    shown = selection.classes[:n_bars]
    panel.barh(range(n_bars), [c.mass for c in shown], color=_CHOSEN, height=0.7)
    panel.set_yticks(range(n_bars), [_shortened(c.name) for c in shown])
    for label in panel.get_yticklabels():
        label.set_parse_math(False)
    panel.set_ylim(n_bars - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.locator_params(axis="x", nbins=4)
    panel.set_title(f"first {n_bars} chosen", fontsize=10, fontweight="bold")
    panel.set_xlabel("mass", fontsize=9)


def _draw_masses(panel: Axes, selection: SourceSelection) -> None:
    masses = np.array([c.mass for c in selection.ranked])
    places, chosen = np.arange(1, len(masses) + 1), np.arange(len(masses)) < selection.n_chosen
    panel.vlines(places[chosen], 0, masses[chosen], color=_CHOSEN, linewidth=1, label=f"chosen: {chosen.sum():,}")
    panel.vlines(
        places[~chosen], 0, masses[~chosen], color=_OTHER, linewidth=1, label=f"not chosen: {(~chosen).sum():,}"
    )
    panel.plot(places, masses, color=_GREY, linewidth=0.8)
    panel.set_ylim(0)
    panel.set_title("mass of every source class", fontsize=10, fontweight="bold")
    panel.set_xlabel("place", fontsize=9)
    panel.locator_params(axis="x", integer=True)
    panel.legend(fontsize=8, frameon=False)


def _draw_weights(panel: Axes, selection: SourceSelection) -> None:
    masses = np.sort(selection.weights or ())[::-1]
    panel.fill_between(np.arange(1, len(masses) + 1), masses, color=_CHOSEN, linewidth=0)
    panel.set_ylim(0)
    panel.set_title("mass of every chosen sample", fontsize=10, fontweight="bold")
    panel.set_xlabel("place", fontsize=9)
    panel.locator_params(axis="x", integer=True)


def _draw_target(panel: Axes, selection: SourceSelection) -> None:
    """Draw the target classes by distance to what was chosen, and to what there was to choose."""
    far = sorted(selection.coverage, key=lambda one: (one.distance, one.name))
    places = range(1, len(far) + 1)
    panel.plot(places, [one.distance for one in far], "o", color=_CHOSEN, markersize=3.5, label="nearest chosen")
    panel.plot(places, [one.least_distance for one in far], ".", color=_GREY, markersize=2.5, label="nearest of all")
    if selection.near_limit is not None:
        panel.axhline(selection.near_limit, color=_LIMIT, linewidth=1, label="95 % of source neighbours")
    panel.set_ylim(0)
    panel.set_title("distance of every target class", fontsize=10, fontweight="bold")
    panel.set_xlabel("target classes, nearest first", fontsize=9)
    panel.locator_params(axis="x", integer=True)
    panel.legend(fontsize=8, frameon=False)


def _caption(selection: SourceSelection) -> str:
    of, between = f" of {len(selection.ranked):,}", "class means"
    if not selection.ranked:
        of, between = "", "a class mean and a sample"
    text = (
        f"{selection.source} for {selection.target}, by {selection.method}. Effective number of source "
        f"{'classes' if of else 'samples'}: {selection.n_effective:,.1f}{of}. distance: 1 - cosine of {between}."
    )
    if selection.near_limit is None:
        return text
    of_all = counted(len(selection.coverage), "target class", "target classes")
    return f"{text} Beyond the line: {len(selection.badly_served):,} of {of_all}."


def _shortened(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _LINE else f"{name[: _LINE - 3]}..."
