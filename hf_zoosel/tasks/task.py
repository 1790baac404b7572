"""A data set seen as a task, and ``load_task``, which makes one of anything that holds labelled images."""

from dataclasses import dataclass
from operator import index

import numpy as np

from hf_zoosel.tasks.labels import number_classes
from hf_zoosel.tasks.opening import DatasetLike, open_split
from hf_zoosel.tasks.sampling import Request, Sample, draw_from_dataset, draw_from_stream
from hf_zoosel.tasks.storage import Images

_LISTED = 5  # names written out in a note


@dataclass(frozen=True, eq=False)
class Task:
    """Labelled images drawn from one split of a data set.

    Attributes:
        name: Short human name of the data set.
        labels: Classes 0..k-1, int64 of shape ``(n_samples,)``, read-only.
        class_names: Name of each class, shape ``(k,)``.
        rows: Row of each sample in the split, ascending, int64 of shape ``(n_samples,)``, read-only.
        images: Reads the images on demand.
        n_available: Labelled rows of the split before drawing.
        notes: What a person should know, one sentence each.
        image_column: Where the images were found.
        label_column: Where the labels were found.
        split: Name of the split, empty if the data set was given without one.
    """

    name: str
    labels: np.ndarray
    class_names: tuple[str, ...]
    rows: np.ndarray
    images: Images
    n_available: int
    notes: tuple[str, ...]
    image_column: str
    label_column: str
    split: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        """Number of classes in the sample."""
        return len(self.class_names)


def load_task(
    dataset: DatasetLike,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    max_per_class: int | None = 25,
    seed: int = 0,
    name: str | None = None,
) -> Task:
    """See an image-classification data set as a task.

    Columns are found from the features, at most ``max_per_class`` rows of each class are drawn, and labels of any
    type become 0..k-1. The draw depends on the seed, the labels and the order of the rows only: a stream gives the
    rows its data set gives, and a smaller draw lies within a larger one. Images are not decoded; transforms and
    formats set on the data set are not applied.

    Args:
        dataset: A Dataset, DatasetDict, IterableDataset or IterableDatasetDict (streamed once to the end), a path
            (class folders of images, parquet files, or a folder written by ``save_to_disk``) or a Hub id, with
            ``:configuration`` and ``@revision`` if wanted; a name that exists as a path is taken for one.
        image_column: Column with images, encoded bytes, paths or arrays; None to find it.
        label_column: Column with ClassLabel, int, str or bool; None to find it.
        split: Split to take of several; None for "train". A test split is never taken unless named.
        max_per_class: Rows to draw per class; None for all (a stream then writes its images to a temporary file).
        seed: Seed of the draw.
        name: Name of the task; None for the name of the data set.

    Returns:
        The task, with at least two classes.

    Raises:
        TypeError: If ``dataset`` is none of these, or a number is not an integer.
        ValueError: If the data set cannot be opened, a column or split cannot be found, the labels are a regression
            or multi-label target, or fewer than two classes have rows.

    Reference:
        At most 25 images per class, as in "A linearized framework and a new benchmark for model selection for
        fine-tuning", arXiv:2102.00084.

    Example:
        >>> from datasets import Dataset
        >>> digits = Dataset.from_dict({"image": [[[0.0]], [[0.5]], [[1.0]]], "label": ["dark", "dark", "light"]})
        >>> task = load_task(digits, max_per_class=1)
        >>> task.class_names, task.labels.tolist(), task.n_available, task.notes
        (('dark', 'light'), [0, 1], 3, ('2 classes have a single image in the sample: dark, light',))
    """
    if max_per_class is not None:
        max_per_class = _integer("max_per_class", max_per_class, least=1, remedy="Pass None to take all.")
    request = Request(image_column, label_column, max_per_class, _integer("seed", seed, least=0))
    opened = open_split(dataset, split)
    sample = _draw(opened.data, request)
    labels, class_names = number_classes(sample.codes, sample.values, sample.columns.class_names)
    if len(class_names) < 2:
        raise ValueError(_too_few_classes(sample, class_names))
    labels.setflags(write=False)
    sample.rows.setflags(write=False)
    return Task(
        name=name or opened.name,
        labels=labels,
        class_names=class_names,
        rows=sample.rows,
        images=sample.images,
        n_available=sample.n_labelled,
        notes=opened.notes + _notes(sample, labels, class_names),
        image_column=sample.columns.image,
        label_column=sample.columns.label,
        split=opened.split,
    )


def _draw(data: object, request: Request) -> Sample:
    from datasets import Dataset

    return draw_from_dataset(data, request) if isinstance(data, Dataset) else draw_from_stream(data, request)


def _too_few_classes(sample: Sample, class_names: tuple[str, ...]) -> str:
    column = sample.columns.label
    if sample.n_labelled == 0:
        return f"`dataset` must have labels, got none in the {sample.n_rows} rows of {column!r}. Take another split."
    return (
        f"`dataset` must have at least 2 classes, got only {class_names[0]!r} in column {column!r}. Pass another "
        "`label_column=` or split."
    )


def _notes(sample: Sample, labels: np.ndarray, class_names: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    if missing := sample.n_rows - sample.n_labelled:
        notes.append(f"{missing} of {sample.n_rows} rows have no label and were left out")
    declared = sample.columns.class_names or []
    if absent := [name for name in declared if name not in class_names]:
        notes.append(_classes(absent, "no image"))
    if single := [class_names[label] for label in np.flatnonzero(np.bincount(labels) == 1)]:
        notes.append(_classes(single, "a single image in the sample"))
    return tuple(notes)


def _classes(names: list[str], have: str) -> str:
    listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    return f"{len(names)} {'class has' if len(names) == 1 else 'classes have'} {have}: {listed}"


def _integer(argument: str, value: object, *, least: int, remedy: str = "") -> int:
    """Check an integer argument; bool is refused, NumPy integers are taken."""
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise TypeError(f"`{argument}` must be an integer, got {value!r}. {remedy}".strip())
    if number < least:
        raise ValueError(f"`{argument}` must be at least {least}, got {number}. {remedy}".strip())
    return number
