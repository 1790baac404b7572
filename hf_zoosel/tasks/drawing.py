"""Draw the sample of a task from a map-style data set or from a stream."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_zoosel.tasks.columns import Columns, find_columns
from hf_zoosel.tasks.labels import MISSING, LabelCoder, LabelValue, read_codes
from hf_zoosel.tasks.sampling import Reservoir, draw_rows
from hf_zoosel.tasks.storage import ColumnImages, Images, Spool

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

    def peek(name: str) -> object:
        first = dataset.with_format("arrow").select_columns([name])[:_HEAD]
        return next((value for value in first.column(0).to_pylist() if value is not None), None)

    if len(dataset) == 0:
        raise ValueError(NO_ROWS)
    columns = request.find_columns(dataset.features, peek)
    codes, values = read_codes(dataset, columns)
    rows = draw_rows(codes, request.max_per_class, request.seed)
    images = ColumnImages(dataset, columns.image, rows, mode=columns.mode)
    return Sample(columns, rows, codes[rows], values, images, len(codes), int((codes != MISSING).sum()))


def draw_from_stream(stream: "IterableDataset", request: Request) -> Sample:
    """Draw from a stream, read once to its end; of images only the drawn ones are kept, as they were encoded.

    With ``max_per_class=None`` they are written to a temporary file instead of memory.
    """
    stream = stream.with_format(None)
    if stream.features is not None:
        stream = stream.decode(False)
    examples = iter(stream)
    head = _read_head(examples, stream.features)
    if not head:
        raise ValueError(NO_ROWS)
    features = stream.features if stream.features is not None else _infer_features(head)
    columns = request.find_columns(features, lambda name: _first_value(head, name))
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


def _read_head(examples: Iterator[dict[str, Any]], features: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Read the first row, and on until every column has had a value, or ``_HEAD`` rows."""
    head = list(islice(examples, 1))
    while head and len(head) < _HEAD and any(_first_value(head, name) is None for name in features or head[0]):
        following = list(islice(examples, 1))
        if not following:
            break
        head += following
    return head


def _first_value(head: Sequence[Mapping[str, Any]], name: str) -> object:
    return next((example[name] for example in head if example.get(name) is not None), None)


def _infer_features(head: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Let datasets infer each column's feature from its first value."""
    from datasets import Dataset

    features: dict[str, Any] = {}
    for name in dict.fromkeys(name for example in head for name in example):
        try:
            features[name] = Dataset.from_list([{name: _first_value(head, name)}]).features[name]
        except (TypeError, ValueError, OverflowError):  # pyarrow's errors are among these: no column for us
            features[name] = None
    return features
