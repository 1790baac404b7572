"""A contact sheet of a selection: would a person agree?"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_zoosel.selection import SourceSelection, selection_sheet, shown_in
from hf_zoosel.tasks import ImageError, SourceRows, open_rows
from hf_zoosel.tasks.argument_names import of_source, said_of
from hf_zoosel.tasks.labels import class_name
from hf_zoosel.tasks.spans import pieces

if TYPE_CHECKING:
    from PIL import Image

_CHUNK = 1024  # rows read at a time


def contact_sheet(
    selection: SourceSelection,
    target: Any,
    source: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    source_image_column: str | None = None,
    source_label_column: str | None = None,
    source_split: str | None = None,
    n: int = 16,
    size: int = 128,
) -> "Image.Image":
    """Show one image of each class that was chosen, nearly chosen and rejected, below the target's own.

    Of a selection of single images those that weigh most and least are shown.

    Args:
        selection: A selection of classes or of images.
        target: The target it was made for.
        source: The source it was made from.
        image_column: Column of the target's images; found from the features if None.
        label_column: Column of its labels; found if None.
        split: The target's split; the train split if None.
        source_image_column: Column of the source's images.
        source_label_column: Column of its labels.
        source_split: The source's split.
        n: Images in each section at most.
        size: Side of an image in pixels.

    Returns:
        The sheet.

    Raises:
        ValueError: If the selection is one of clusters, or a data set has no image of a class or row that can be
            read.
    """
    if selection.unit == "cluster":
        raise ValueError("`selection` must be one of classes or images, got one of clusters. Look at its rows.")
    with said_of({"dataset": "target"}):
        target_rows = open_rows(target, image_column=image_column, label_column=label_column, split=split)
    with said_of(of_source()):
        source_rows = open_rows(
            source, image_column=source_image_column, label_column=source_label_column, split=source_split
        )
    (_, of_target), *sections = shown_in(selection, n)
    shown = {index for _, section in sections for index, _ in section}
    if selection.unit == "sample":
        source_image = _of_rows(source_rows, shown)
    else:
        source_image = _of_classes(
            source_rows, {one.index: one.name for one in selection.ranked if one.index in shown}
        )
    named = {one.index: one.name for one in selection.coverage}
    target_image = _of_classes(target_rows, {index: named[index] for index, _ in of_target})
    return selection_sheet(selection, source_image.__getitem__, target_image.__getitem__, n=n, size=size)


def _of_classes(rows: SourceRows, names: Mapping[int, str]) -> dict[int, "Image.Image"]:
    """The first image of each class that can be read, by the class's position; reading ends with the last."""
    found: dict[str, Image.Image] = {}
    wanted, coder = set(names.values()), rows.new_coder()
    if coder is None:
        raise ValueError(f"`{rows.name}` must have labels for a sheet of its classes, got none. Name the column.")
    for chunk in rows.read(pieces([], _CHUNK, rows.n_rows), coder):
        coded = [class_name(value, rows.class_names) for value in coder.values]
        left = {code for code, name in enumerate(coded) if name in wanted - found.keys()}
        for place in np.isin(chunk.codes, list(left)).nonzero()[0].tolist():
            name = coded[chunk.codes[place]]
            if name not in found:
                with suppress(ImageError):
                    found[name] = chunk.images.encoded([place])[0].decode()
        if len(found) == len(wanted):
            break
    missing = sorted(wanted - found.keys())
    if missing:
        raise ValueError(f"`{rows.name}` must hold an image of {missing[0]!r}, got none. Pass what was selected from.")
    return {index: found[name] for index, name in names.items()}


def _of_rows(rows: SourceRows, wanted: Collection[int]) -> dict[int, "Image.Image"]:
    """Images by row number."""
    chunks = rows.read([range(row, row + 1) for row in sorted(wanted)], None)
    found = {chunk.rows.start: chunk.images.encoded([0])[0].decode() for chunk in chunks}
    missing = sorted(set(wanted) - found.keys())
    if missing:
        raise ValueError(f"`{rows.name}` must have a row {missing[0]}, got fewer. Pass what was selected from.")
    return found
