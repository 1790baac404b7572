"""A matplotlib figure that a notebook shows by itself (imported only where matplotlib is installed)."""

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure made without pyplot, so without global state, that still appears as a cell's result."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
