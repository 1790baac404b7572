"""The images of the source: the rows of a selection, with its masses, or any data set, labelled or not."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from hf_zoosel.selection import SourceSelection
from hf_zoosel.tasks.labels import number_classes
from hf_zoosel.tasks.opening import DatasetLike, open_split
from hf_zoosel.tasks.rows import STREAM, RowColumns, SourceRows, open_rows
from hf_zoosel.tasks.sampling import Request, begin_stream
from hf_zoosel.tasks.storage import ColumnImages, Spool
from hf_zoosel.tasks.views import classes_of, rows_of
from hf_zoosel.training.streams import LabelledRows, draw_sample, unlabelled_note

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

_LISTED = 5


@dataclass(frozen=True)
class _Asked:
    image_column: str | None
    label_column: str | None
    labelled: bool | None
    max_per_class: int | None
    seed: int

    def open(self, data: Any, split: str | None = None) -> SourceRows:
        columns = {"image_column": self.image_column, "label_column": self.label_column}
        return open_rows(data, **columns, split=split, labelled=self.labelled)


def open_source(
    source: SourceSelection | DatasetLike,
    *,
    data: DatasetLike | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    labelled: bool | None = None,
    weighted: bool = False,
    max_per_class: int | None = None,
    seed: int = 0,
) -> LabelledRows:
    """The source images to train with beside the target.

    Args:
        source: A selection, of which the chosen rows are taken; or a data set, of which all are.
        data: The data set a selection was made from, where the selection does not hold it (one read from a file).
        image_column: Column with images; None to find it.
        label_column: Column with classes; None to find it.
        split: Split to take of several; None for "train". Not beside a selection that holds its data.
        labelled: False to leave labels out, True to insist on them; None to take them where there are any.
        weighted: Whether rows are to be drawn by the masses of their classes; without, every row is as likely.
        max_per_class: Rows to draw of each class; None for all. Rows without labels are all taken.
        seed: Seed of that draw.

    Returns:
        The images; labels count the classes that are there, 0..k-1, in the order of the data set's own. A note says
        where the classes of a selection are taken from other images than it was made from.

    Raises:
        TypeError: If there is no selection, data set, path or Hub id.
        ValueError: If the data cannot be opened, lack a chosen class, or are not those that rows were chosen of, or
            if masses are asked for where there are none.
    """
    asked = _Asked(image_column, label_column, labelled, max_per_class, seed)
    if not isinstance(source, SourceSelection):
        if weighted:
            raise ValueError("`weighted` must be False without a selection: a data set has no masses.")
        opened = open_split(source, split)
        return replace(_read(opened.data, asked), name=opened.name, split=opened.split)
    view, notes = _rows_of(source, data, split, asked)
    rows = _read(view, asked)
    rows = replace(rows, name=source.source, notes=(*rows.notes, *notes))
    if source.unit == "class" and rows.labels is not None:
        _check_names(source, set(rows.class_names), rows.name)
    return replace(rows, weights=_weights(source, rows)) if weighted else rows


def _rows_of(
    selection: SourceSelection, data: DatasetLike | None, split: str | None, asked: _Asked
) -> tuple[Any, tuple[str, ...]]:
    """The chosen rows as a data set, from the selection itself or found again in data; and what to know of these."""
    if data is None:
        if selection.view is None:
            raise ValueError(
                "`data` must be given beside a selection that was read from a file or made from statistics, got None: "
                "neither holds images. Pass the data set it was made from."
            )
        if split is not None:
            raise ValueError(
                f"`split` must be None beside a selection that holds its data, got {split!r}. Leave it out."
            )
        return selection.dataset(), ()
    opened = replace(asked, labelled=True if selection.unit == "class" else asked.labelled).open(data, split)
    if selection.rows is not None:
        _check_images(selection.revisions.get("source_images"), opened)
        if opened.n_rows is not None and max(selection.rows) >= opened.n_rows:
            raise ValueError(
                f"`data` must be what the selection was made from, but has {opened.n_rows:,} rows where row "
                f"{max(selection.rows):,} was chosen. Pass the same data set and split."
            )
        return rows_of(data, opened.split, selection.rows)(), ()
    names = opened.class_names
    if names is not None:
        _check_names(selection, set(names), opened.name)
    chosen = [one.name for one in selection.classes]
    column = opened.columns.label or ""
    view = classes_of(data, opened.split, label_column=column, label_names=names, classes=chosen)()
    if hasattr(view, "__len__") and len(view) == 0:
        _check_names(selection, set(), opened.name)
    same = _are_those(selection.revisions.get("source_images"), opened)
    return view, () if same else (f"{opened.name!r} holds other images than those the selection was made from",)


def _read(data: Union["Dataset", "IterableDataset"], asked: _Asked) -> LabelledRows:
    opened = asked.open(data)
    columns = opened.columns
    if columns.label is None:
        return LabelledRows(opened.name, opened.split, *_unlabelled(data, columns), opened.notes)
    sample = draw_sample(data, Request(columns.image, columns.label, asked.max_per_class, asked.seed))
    labels, names = number_classes(sample.codes, sample.values, sample.columns.class_names)
    if not names:
        raise ValueError(
            f"`source` must have labels in column {columns.label!r}, got none in {sample.n_rows} rows. "
            "To train with its images alone take method='consistency'."
        )
    notes = (*opened.notes, *unlabelled_note(sample))
    return LabelledRows(opened.name, opened.split, sample.images, labels, names, sample.rows, notes)


def _unlabelled(data: Any, columns: RowColumns) -> tuple[Any, None, tuple[str, ...], np.ndarray]:
    """Images, no labels, no names, and row numbers of every row; a stream's images go to a temporary file."""
    from itertools import chain

    from datasets import Dataset

    if isinstance(data, Dataset):
        rows = np.arange(len(data))
        return ColumnImages(data, columns.image, rows, mode=columns.mode), None, (), rows
    _, examples, head, _ = begin_stream(data)
    spool = Spool()
    for row, example in enumerate(chain(head, examples)):
        spool.offer(row, 0, example.get(columns.image))
    rows, _, images = spool.finish(columns.mode)
    return images, None, (), rows


def _check_images(made_from: str | None, opened: SourceRows) -> None:
    """Refuse row numbers of other data."""
    if made_from is not None and not _are_those(made_from, opened):
        (made, _), (there, _) = (one.split(", ") for one in (made_from, opened.images_digest))
        raise ValueError(
            f"`data` must be what the selection was made from, {made}, for its rows are known by number, but "
            f"{opened.name!r} ({there}) has other images or another order. Pass the same data set and split."
        )


def _are_those(made_from: str | None, opened: SourceRows) -> bool:
    """Whether images may be those a selection was made from; a stream and a table are digested in other ways."""
    if made_from is None or made_from.startswith(STREAM) != opened.images_digest.startswith(STREAM):
        return True
    return made_from == opened.images_digest


def _check_names(selection: SourceSelection, there: set[str], name: str) -> None:
    lost = [one.name for one in selection.classes if one.name not in there]
    if lost:
        listed = ", ".join(map(repr, lost[:_LISTED])) + (", ..." if len(lost) > _LISTED else "")
        raise ValueError(
            f"`source` must be a selection from classes of the data, but {len(lost):,} of {len(selection):,} chosen "
            f"are not in {name!r}: {listed}. Pass the data set, split and label column the selection was made from."
        )


def _weights(selection: SourceSelection, rows: LabelledRows) -> np.ndarray:
    """Weight of each row, float64 ``(n,)``: its own mass, or that of its class, shared among the rows of it."""
    if selection.weights is not None:  # one for each chosen row; rows without a label are no longer there
        return np.array(selection.weights)[rows.rows]
    if selection.unit != "class" or rows.labels is None:
        raise ValueError(
            f"`weighted` must be False for a selection of {selection.unit} units without labels of their own: which "
            "mass a row has is not known."
        )
    mass = dict.fromkeys(rows.class_names, 0.0)
    for one in selection.classes:
        mass[one.name] += one.mass
    counts = np.bincount(rows.labels, minlength=len(rows.class_names))
    names, per_name = rows.class_names, dict.fromkeys(rows.class_names, 0)
    for name, count in zip(names, counts.tolist(), strict=True):
        per_name[name] += count  # two classes may share a name
    return np.array([mass[name] / per_name[name] for name in names])[rows.labels]
