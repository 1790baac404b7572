"""All rows of one split of a data set, read a chunk at a time: for data that no memory holds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from hf_zoosel.tasks.columns import find_columns, find_image_column, has_label_column
from hf_zoosel.tasks.errors import NoRowsError
from hf_zoosel.tasks.identity import content_identity, stream_identity
from hf_zoosel.tasks.labels import MISSING, LabelCoder
from hf_zoosel.tasks.opening import DatasetLike, open_split
from hf_zoosel.tasks.sampling import NO_ROWS, begin_stream, first_value, peek
from hf_zoosel.tasks.spans import pieces
from hf_zoosel.tasks.storage import ColumnImages, Images, ListedImages

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

STREAM = "stream"
_SAMPLED = 16  # rows whose content tells one data set from another


@dataclass(frozen=True)
class Chunk:
    """Some neighbouring rows of a split.

    Attributes:
        rows: Their numbers in the split.
        codes: Code of each label by the coder it was read with, ``MISSING`` where there is none, ``(n,)`` int64.
        images: Their images, not decoded, by position in the chunk.
    """

    rows: range
    codes: np.ndarray
    images: Images


@dataclass(frozen=True)
class RowColumns:
    """Where images and labels were found; ``label`` is None where there are none, or none are wanted."""

    image: str
    mode: str | None
    label: str | None
    class_names: tuple[str, ...] | None


class _Reader(Protocol):
    def read(self, spans: Iterable[range], coder: LabelCoder | None) -> Iterator[Chunk]: ...


@dataclass(frozen=True, eq=False)
class SourceRows:
    """The rows of one split, read in one direction and as often as wanted; at most a chunk is held.

    Attributes:
        name: Short human name of the data set.
        split: Name of the split, empty if the data set was given without one.
        columns: Where images and labels were found.
        n_rows: Rows of the split; None for a stream, whose end is not known before it is reached.
        fingerprint: What the data set is: the fingerprint of a map-style data set (before formats and transforms
            set on it, which are not applied), or a digest of what a stream is made of (files, generator and its
            arguments, shuffling, epoch) and of its first rows. None for a stream that cannot be pickled. Images
            kept as paths count by path: a file changed in place is not noticed, nor a generator that gives
            other rows after the first 16 than it did before.
        content: Digest of 16 of the rows: to see whether processes look at the same data.
        images_digest: How many rows and a digest of the images of 16 of them, whatever the labels; for a stream, of
            its first 16.
        notes: What a person should know about how it was opened.
    """

    name: str
    split: str
    columns: RowColumns
    n_rows: int | None
    fingerprint: str | None
    content: str
    images_digest: str
    notes: tuple[str, ...]
    _reader: _Reader

    @property
    def is_labelled(self) -> bool:
        """Whether there are labels."""
        return self.columns.label is not None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of a ClassLabel column; None where the classes are known once all rows are read."""
        return self.columns.class_names

    @property
    def identity(self) -> Mapping[str, object] | None:
        """What results computed from the rows are kept under; None where they cannot be told from others'."""
        if self.fingerprint is None:
            return None
        return {
            "fingerprint": self.fingerprint,
            "content": self.content,
            "split": self.split,
            "image_column": self.columns.image,
            "label_column": self.columns.label,
        }

    def new_coder(self, values: Sequence[object] = ()) -> LabelCoder | None:
        """A coder for one pass, which knows some label values already; None where there are no labels."""
        if self.columns.label is None:
            return None
        coder = LabelCoder(self.columns.label, is_class_label=self.columns.class_names is not None)
        for value in values:
            coder.code(value)
        return coder

    def read(self, spans: Iterable[range], coder: LabelCoder | None) -> Iterator[Chunk]:
        """Read rows, one chunk a span, until the spans or the rows end.

        Args:
            spans: Row numbers, ascending and disjoint; there may be more than there are rows. A map-style data set
                goes to the first at once; a stream passes over what lies before it, without decoding.
            coder: Numbers the labels in the order they come; None to leave them out.

        Yields:
            The rows of each span, as many as there are; none where a span lies beyond the end.

        Raises:
            ValueError: If a label is no class.
            Exception: Whatever the data set raises where it cannot be read.
        """
        return self._reader.read(spans, coder)

    def chunks(self, size: int, *, start: int = 0) -> Iterator[Chunk]:
        """Read all rows from one on, ``size`` at a time, with a coder of its own.

        Example:
            >>> from datasets import Dataset
            >>> rows = open_rows(Dataset.from_dict({"image": [[[0.0]]] * 5, "label": list("abaab")}))
            >>> [(chunk.rows, chunk.codes.tolist()) for chunk in rows.chunks(3)]
            [(range(0, 3), [0, 1, 0]), (range(3, 5), [0, 1])]
        """
        done = [range(start)] if start else []
        return self.read(pieces(done, size, self.n_rows), self.new_coder())


def open_rows(
    dataset: DatasetLike,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    labelled: bool | None = None,
) -> SourceRows:
    """See every row of an image data set, however large, as chunks of images and labels.

    Nothing is read but the types of the columns and 16 rows.

    Args:
        dataset: As ``load_task`` takes it; it need not have labels.
        image_column: Column with images; None to find it.
        label_column: Column with classes; None to find it.
        split: Split to take of several; None for "train".
        labelled: False to leave labels out, True to insist on them; None to take them where there is a column of
            classes or one with a usual name of labels.

    Raises:
        TypeError: If ``dataset`` is no data set, path or Hub id.
        ValueError: If it cannot be opened or is empty, a column or split cannot be found, or the labels are a
            regression or multi-label target.

    Example:
        >>> from datasets import Dataset
        >>> rows = open_rows(Dataset.from_dict({"image": [[[0.0]], [[1.0]]]}))
        >>> rows.is_labelled, rows.n_rows, [len(chunk.images) for chunk in rows.chunks(1)]
        (False, 2, [1, 1])
    """
    from datasets import Dataset

    if labelled is False and label_column is not None:
        raise ValueError(f"`label_column` must be None for `labelled=False`, got {label_column!r}. Leave one out.")
    opened = open_split(dataset, split)
    asked = _Asked(image_column, label_column, labelled)
    parts = _open_table(opened.data, asked) if isinstance(opened.data, Dataset) else _open_stream(opened.data, asked)
    return SourceRows(opened.name, opened.split, *parts[:-1], opened.notes, parts[-1])


@dataclass(frozen=True)
class _Asked:
    image_column: str | None
    label_column: str | None
    labelled: bool | None

    def find(self, features: Mapping[str, Any], peek_at: Any) -> RowColumns:
        if (self.labelled is None and self.label_column is None) or self.labelled is False:
            image = find_image_column(features, peek_at, image_column=self.image_column)
            if self.labelled is False or not has_label_column(features, image):
                return RowColumns(image, getattr(features[image], "mode", None), None, None)
        both = {"image_column": self.image_column, "label_column": self.label_column}
        found = find_columns(features, peek_at, **both)
        names = None if found.class_names is None else tuple(found.class_names)
        return RowColumns(found.image, found.mode, found.label, names)


_Parts = tuple[RowColumns, int | None, str | None, str, str, _Reader]


def _open_table(dataset: "Dataset", asked: _Asked) -> _Parts:
    if len(dataset) == 0:
        raise NoRowsError(NO_ROWS)
    columns = asked.find(dataset.features, partial(peek, dataset))
    reader = _TableReader(dataset, columns)
    some = np.unique(np.linspace(0, len(dataset) - 1, _SAMPLED).astype(np.int64))
    images = ColumnImages(dataset, columns.image, some, mode=columns.mode)
    content = content_identity(images, reader.labels_at(some))
    digest = f"{len(dataset)} rows, {content_identity(images, ())}"
    return columns, len(dataset), str(dataset._fingerprint), content, digest, reader


class _TableReader:
    """Reads any rows of a map-style data set through Arrow."""

    def __init__(self, dataset: "Dataset", columns: RowColumns) -> None:
        plain = dataset.with_format("arrow")
        self._n_rows, self._columns = len(dataset), columns
        self._images = plain.select_columns([columns.image])
        self._labels = None if columns.label is None else plain.select_columns([columns.label])

    def read(self, spans: Iterable[range], coder: LabelCoder | None) -> Iterator[Chunk]:
        for span in spans:
            rows = range(span.start, min(span.stop, self._n_rows))
            if not rows:
                return
            at = np.arange(rows.start, rows.stop)
            images = ColumnImages(self._images, self._columns.image, at, mode=self._columns.mode)
            yield Chunk(rows, _codes(self.labels_at(rows), coder), images)

    def labels_at(self, rows: Sequence[int] | np.ndarray | range) -> list[object]:
        """Label values of some rows; None where there are no labels."""
        if self._labels is None:
            return [None] * len(rows)
        at = slice(rows.start, rows.stop) if isinstance(rows, range) else [int(row) for row in rows]
        return cast(list[object], self._labels[at].column(0).to_pylist())


def _open_stream(stream: "IterableDataset", asked: _Asked) -> _Parts:
    identity = stream_identity(stream)  # of the stream as it was given
    stream, examples, head, features = begin_stream(stream)
    columns = asked.find(features, lambda name: first_value(head, name))
    head += list(islice(examples, max(0, _SAMPLED - len(head))))
    some = [_image_and_label(example, columns) for example in head[:_SAMPLED]]
    images = ListedImages([image for image, _ in some], mode=columns.mode)
    content = content_identity(images, [label for _, label in some])
    digest = f"{STREAM}, {content_identity(images, ())}"
    reader = _StreamReader(stream, columns, chain(head, examples))
    return columns, None, identity and f"{identity} {content}", content, digest, reader


class _StreamReader:
    """Reads a stream from its start, or passes over its first rows.

    What opening it has read is used by the first pass from the start, as a stream may be a costly thing to begin.
    ``IterableDataset.state_dict`` would start elsewhere at once, but loses what a shuffling buffer holds.
    """

    def __init__(self, stream: "IterableDataset", columns: RowColumns, begun: Iterator[dict[str, Any]]) -> None:
        self._stream, self._columns = stream, columns
        self._begun: Iterator[dict[str, Any]] | None = begun

    def read(self, spans: Iterable[range], coder: LabelCoder | None) -> Iterator[Chunk]:
        examples, at = None, 0
        for span in spans:
            if examples is None:
                examples, at = self._from(span.start), span.start
            for _ in islice(examples, span.start - at):
                pass
            some = [_image_and_label(example, self._columns) for example in islice(examples, len(span))]
            at = span.stop
            if not some:
                return
            codes = _codes([label for _, label in some], coder)
            images = ListedImages([image for image, _ in some], mode=self._columns.mode)
            yield Chunk(range(span.start, span.start + len(some)), codes, images)

    def _from(self, row: int) -> Iterator[dict[str, Any]]:
        if row == 0 and self._begun is not None:
            examples, self._begun = self._begun, None
            return examples
        return iter(self._stream.skip(row) if row else self._stream)


def _image_and_label(example: Mapping[str, Any], columns: RowColumns) -> tuple[object, object]:
    return example.get(columns.image), None if columns.label is None else example.get(columns.label)


def _codes(labels: Sequence[object], coder: LabelCoder | None) -> np.ndarray:
    codes = [MISSING if coder is None else coder.code(label) for label in labels]
    return np.array(codes, dtype=np.int64)
