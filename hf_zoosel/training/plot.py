"""Losses and accuracy over the epochs; ``FinetuneResult.plot`` imports this file, and matplotlib, when asked."""

import os
from pathlib import Path

from hf_zoosel.ranking.plot import NotebookFigure
from hf_zoosel.training.result import FinetuneResult

_NO_LOSS = {"epoch", "loss", "seconds", "images_per_second", "waited"}


def plot_history(result: FinetuneResult, *, path: str | os.PathLike[str] | None = None) -> NotebookFigure:
    """Draw every term of the loss, and the validation accuracy beside it where there is one.

    Raises:
        ValueError: If there is no history.
    """
    if not result.history:
        raise ValueError("`history` must hold an epoch, got none. Train first.")
    table = result.to_pandas().set_index("epoch")
    columns = list(map(str, table))
    measured = [name for name in columns if name.startswith("validation_") and name.endswith("accuracy")]
    terms = [name for name in columns if name not in _NO_LOSS and not name.startswith("validation_")]
    figure = NotebookFigure(figsize=(4.6 * (1 + bool(measured)), 3.4), dpi=150, layout="constrained")
    panels = list(figure.subplots(1, 1 + bool(measured), squeeze=False)[0])
    for name in terms:
        panels[0].plot(table.index, table[name], marker=".", label=name.replace("_", " "))
    panels[0].set(xlabel="epoch", ylabel="term of the loss")
    for name in measured:
        label = name.removeprefix("validation_").replace("_", " ")
        panels[1].plot(table.index, 100 * table[name], marker=".", label=label)
    if measured:
        panels[1].set(xlabel="epoch", ylabel="validation, %")
    for panel in panels:
        panel.locator_params(axis="x", integer=True)
        panel.legend(frameon=False, fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{result.model} on {result.dataset}", fontsize=9, parse_math=False)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return figure
