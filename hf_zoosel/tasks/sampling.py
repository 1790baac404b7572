"""Draw the sample of a task from a map-style data set or from a stream: at most k rows of each class.

Those with the smallest random priority are drawn, one priority per row in row order. A stream can draw the same
numbers one by one, so it gives the same rows as the data set it streams; and the rows drawn with a smaller k are
among those drawn with a larger one.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_zoosel.tasks.columns import Columns, find_columns
from hf_zoosel.tasks.errors import NoRowsError
from hf_zoosel.tasks.labels import MISSING, LabelCoder, LabelValue, read_codes
from hf_zoosel.tasks.storage import ColumnImages, Images, ListedImages, Spool

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

_HEAD = 100  # rows looked at to learn the types of a stream that does not declare them
NO_ROWS = "`dataset` must have rows, got an empty split. Look at how it was loaded or filtered."


@dataclass(frozen=True)
class Request:
    """What ``load_task`` was asked for, beside the data set."""

    image_column: str | None
    label_column: str | None
    max_per_class: int | None
    seed: int

    def find_columns(self, features: Mapping[str, Any], peek: Callable[[str], object]) -> Columns:
        """Find the two columns among these features."""
        return find_columns(features, peek, image_column=self.image_column, label_column=self.label_column)


@dataclass(frozen=True)
class Sample:
    """The rows drawn, before their classes are numbered.

    Attributes:
        columns: Where images and labels were found.
        rows: Row numbers, ascending, shape ``(n,)``.
        codes: Code of each drawn row, shape ``(n,)``.
        values: Label value of each code.
        images: The images of the drawn rows.
        n_rows: Rows of the split.
        n_labelled: Rows of the split that have a label.
    """

    columns: Columns
    rows: np.ndarray
    codes: np.ndarray
    values: list[LabelValue]
    images: Images
    n_rows: int
    n_labelled: int


def draw_from_dataset(dataset: "Dataset", request: Request) -> Sample:
    """Draw from a map-style data set: reads the label column only, and no image."""
    if len(dataset) == 0:
        raise NoRowsError(NO_ROWS)
    columns = request.find_columns(dataset.features, partial(peek, dataset))
    codes, values = read_codes(dataset, columns)
    rows = draw_rows(codes, request.max_per_class, request.seed)
    images = ColumnImages(dataset, columns.image, rows, mode=columns.mode)
    return Sample(columns, rows, codes[rows], values, images, len(codes), int((codes != MISSING).sum()))


def begin_stream(
    stream: "IterableDataset",
) -> tuple["IterableDataset", Iterator[dict[str, Any]], list[dict[str, Any]], Mapping[str, Any]]:
    """Start to read a stream as it is stored, not decoded or formatted.

    Returns:
        The stream that is read; an iterator over its rows after the first ones; these; and its features.

    Raises:
        ValueError: If it has no rows.
    """
    stream = stream.with_format(None)
    if stream.features is not None:
        stream = stream.decode(False)
    examples = iter(stream)
    head = read_head(examples, stream.features)
    if not head:
        raise NoRowsError(NO_ROWS)
    return stream, examples, head, stream.features if stream.features is not None else infer_features(head)


def draw_from_stream(stream: "IterableDataset", request: Request) -> Sample:
    """Draw from a stream, read once to its end; of images only the drawn ones are kept, as they were encoded.

    With ``max_per_class=None`` they are written to a temporary file instead of memory.
    """
    _, examples, head, features = begin_stream(stream)
    columns = request.find_columns(features, lambda name: first_value(head, name))
    coder = LabelCoder(columns.label, is_class_label=columns.class_names is not None)
    cap = request.max_per_class
    collector = Spool() if cap is None else Reservoir(cap, request.seed)
    n_rows = n_labelled = 0
    for example in chain(head, examples):
        code = coder.code(example.get(columns.label))
        collector.offer(n_rows, code, example.get(columns.image))
        n_rows, n_labelled = n_rows + 1, n_labelled + (code != MISSING)
    rows, codes, images = collector.finish(columns.mode)
    return Sample(columns, rows, codes, coder.values, images, n_rows, n_labelled)


def draw_rows(codes: np.ndarray, max_per_class: int | None, seed: int) -> np.ndarray:
    """Draw rows of a labelled data set.

    Args:
        codes: Class of each row, shape ``(n_rows,)``, ``MISSING`` for rows never to be drawn.
        max_per_class: Rows to draw per class; None for all.
        seed: Seed of the priorities.

    Returns:
        Row numbers, int64, ascending.

    Example:
        >>> draw_rows(np.array([0, 0, 0, 1, -1]), 2, seed=0).tolist()
        [1, 2, 3]
    """
    labelled = np.flatnonzero(codes != MISSING)
    if max_per_class is None:
        return labelled
    priorities = np.random.default_rng(seed).random(len(codes))[labelled]
    order = np.lexsort((priorities, codes[labelled]))  # by class, then by priority
    sorted_codes = codes[labelled][order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_codes, sorted_codes)  # within its class
    return np.sort(labelled[order[rank < max_per_class]])


class Reservoir:
    """Draws the same rows as ``draw_rows`` from a stream and holds no more than them."""

    def __init__(self, max_per_class: int, seed: int) -> None:
        self._max_per_class = max_per_class
        self._rng = np.random.default_rng(seed)
        self._heaps: dict[int, list[tuple[float, int, object]]] = defaultdict(list)  # largest priority on top

    def offer(self, row: int, code: int, value: object) -> None:
        """Take the next row of the stream; rows without a label must be offered too."""
        entry = (-self._rng.random(), row, value)
        if code == MISSING:
            return
        heap = self._heaps[code]
        if len(heap) < self._max_per_class:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)

    def finish(self, mode: str | None) -> tuple[np.ndarray, np.ndarray, Images]:
        """Return row numbers, codes and images of the rows drawn, in row order."""
        kept = sorted((row, code, value) for code, heap in self._heaps.items() for _, row, value in heap)
        rows = np.array([row for row, _, _ in kept], dtype=np.int64)
        codes = np.array([code for _, code, _ in kept], dtype=np.int64)
        return rows, codes, ListedImages([value for _, _, value in kept], mode=mode)


def peek(dataset: "Dataset", column: str) -> object:
    """The first value of a column that is not null, among its first ``_HEAD`` rows; else None."""
    first = dataset.with_format("arrow").select_columns([column])[:_HEAD]
    return next((value for value in first.column(0).to_pylist() if value is not None), None)


def read_head(examples: Iterator[dict[str, Any]], features: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Read the first row, and on until every column has had a value, or ``_HEAD`` rows."""
    head = list(islice(examples, 1))
    while head and len(head) < _HEAD and any(first_value(head, name) is None for name in features or head[0]):
        following = list(islice(examples, 1))
        if not following:
            break
        head += following
    return head


def first_value(head: Sequence[Mapping[str, Any]], name: str) -> object:
    """The first value of a column of these rows that is not null, else None."""
    return next((example[name] for example in head if example.get(name) is not None), None)


def infer_features(head: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Let datasets infer each column's feature from its first value."""
    from datasets import Dataset

    features: dict[str, Any] = {}
    for name in dict.fromkeys(name for example in head for name in example):
        try:
            features[name] = Dataset.from_list([{name: first_value(head, name)}]).features[name]
        except (TypeError, ValueError, OverflowError):  # pyarrow's errors are among these: no column for us
            features[name] = None
    return features
