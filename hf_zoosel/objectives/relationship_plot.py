"""A relationship as a picture; ``Relationship.plot`` imports this file, and with it matplotlib, when asked."""

import io
import os
from pathlib import Path

from hf_zoosel.objectives.relationship_record import Relationship, settings_of

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("`plot` needs matplotlib. Install it with `pip install hf-zoosel[plots]`.") from error

_MOST_ROWS, _MOST_COLUMNS = 40, 60
_LINE = 30  # characters of a name
_GREY = "#666666"


class NotebookFigure(Figure):
    """A figure made without pyplot, so without global state, that still appears as a notebook cell's result."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def plot_relationship(relationship: Relationship, *, path: str | os.PathLike[str] | None = None) -> NotebookFigure:
    """Draw a row per target class, 40 at most, and a column for each source class among the first of a row."""
    matrix = relationship.matrix[:_MOST_ROWS]
    columns = _columns(relationship)
    n_rows, n_columns = len(matrix), len(columns)
    figure = NotebookFigure(figsize=(4.2 + 0.2 * n_columns, 3.4 + 0.2 * n_rows), dpi=150, layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(matrix[:, columns].numpy(), cmap="Blues", vmin=0, aspect="auto")
    panel.set_yticks(range(n_rows), [_shortened(name) for name in relationship.target_names[:n_rows]])
    panel.set_xticks(range(n_columns), [_shortened(relationship.source_names[s]) for s in columns], rotation=90)
    for label in (*panel.get_xticklabels(), *panel.get_yticklabels()):
        label.set_parse_math(False)
    panel.tick_params(length=0, labelsize=8)
    panel.spines[:].set_visible(False)
    panel.set_ylabel("target class", fontsize=9)
    panel.set_xlabel("source class", fontsize=9)
    bar = figure.colorbar(image, ax=panel, shrink=0.8, pad=0.02)
    bar.set_label("p(source class | target class)", fontsize=9)
    bar.ax.tick_params(labelsize=8, color=_GREY)
    figure.suptitle(_title(relationship, n_columns), x=0.01, ha="left", fontsize=9, color=_GREY)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure


def _columns(relationship: Relationship) -> list[int]:
    """Return the source classes that are drawn: the first of every row, then the second of every row, in row order."""
    order = relationship.matrix[:_MOST_ROWS].argsort(dim=1, descending=True, stable=True)
    chosen = list(dict.fromkeys(order.T.flatten().tolist()))[:_MOST_COLUMNS]
    return sorted(chosen, key=lambda s: (int(relationship.matrix[:_MOST_ROWS, s].argmax()), s))


def _title(relationship: Relationship, n_columns: int) -> str:
    n_target, n_source = relationship.matrix.shape
    left_out = [
        f"{shown} of {n:,} {kind} classes"
        for shown, n, kind in ((min(n_target, _MOST_ROWS), n_target, "target"), (n_columns, n_source, "source"))
        if shown < n
    ]
    drawn = f"\nDrawn: {' and '.join(left_out)}." if left_out else ""
    return settings_of(relationship) + drawn


def _shortened(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _LINE else f"{name[: _LINE - 3]}..."
