"""The labelled images of the target: those to train on, those to validate on, those to test on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np

from hf_zoosel.tasks import Encoded, Images, load_task
from hf_zoosel.tasks.errors import NoLabelsError
from hf_zoosel.tasks.labels import number_classes
from hf_zoosel.tasks.opening import DatasetLike, open_split
from hf_zoosel.tasks.sampling import Request, Sample, draw_from_dataset, draw_from_stream
from hf_zoosel.training.randomness import Purpose, generator

_DIGESTED = 16  # images whose content tells one data set from another
_LISTED = 5


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Images of one split of a data set, by position, and their labels; survives pickle.

    Attributes:
        name: Short human name of the data set.
        split: Name of the split, empty if it was given without one.
        images: Reads the images on demand.
        labels: Position of each image's class in ``class_names``, int64 ``(n,)``; None where there are no labels.
        class_names: Name of each class; empty where there are no labels.
        rows: Row of each image in the split, int64 ``(n,)``.
        notes: What a person should know, one sentence each.
        weights: How often each row is to be drawn beside the others, float64 ``(n,)``; None for all alike.
    """

    name: str
    split: str
    images: Images = field(repr=False)
    labels: np.ndarray | None = field(repr=False)
    class_names: tuple[str, ...]
    rows: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()
    weights: np.ndarray | None = field(repr=False, default=None)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def identity(self) -> str:
        """Digest of the rows, labels, class names and weights, and of the content of 16 of the images."""
        hasher = blake2b(repr((len(self), self.class_names)).encode(), digest_size=16)
        for array in (self.rows, self.labels, self.weights):
            hasher.update(b"none" if array is None else np.ascontiguousarray(array).data)
        some = np.unique(np.linspace(0, len(self) - 1, min(_DIGESTED, len(self))).astype(np.int64))
        for image in self.images.encoded(some.tolist()):
            hasher.update(image.digest)
        return hasher.hexdigest()

    def labels_at(self, positions: np.ndarray) -> np.ndarray:
        """Labels of the images at these positions, int64; -1 where there are no labels."""
        return np.full(len(positions), -1) if self.labels is None else self.labels[positions]

    def take(self, positions: np.ndarray) -> "LabelledRows":
        """The images at these positions, with the same class names and numbering."""
        return replace(
            self,
            images=ChosenImages(self.images, positions),
            labels=None if self.labels is None else self.labels[positions],
            rows=self.rows[positions],
            weights=None if self.weights is None else self.weights[positions],
        )

    def numbered_as(self, class_names: Sequence[str], whose: str = "target") -> "LabelledRows":
        """The same images with labels that index other class names, matched by name.

        Args:
            class_names: The names to index, among them all of ``self.class_names``; no name twice.
            whose: Whose names they are, for the messages.

        Raises:
            ValueError: If there are no labels, a name comes twice, or a class is not among the names.
        """
        if self.labels is None:
            raise ValueError(f"`dataset` must have labels, got none in {self.name!r}. Name the column.")
        index = {name: number for number, name in enumerate(class_names)}
        if len(index) < len(class_names):
            twice = next(name for at, name in enumerate(class_names) if index[name] != at)
            raise ValueError(
                f"`class_names` must differ for classes to be matched by name, but the {whose} has {twice!r} twice. "
                "Rename one of them."
            )
        if unknown := [name for name in self.class_names if name not in index]:
            where = f"{self.name!r}" + (f", split {self.split!r}" if self.split else "")
            raise ValueError(
                f"`dataset` must have only classes of the {whose}, got {_some(unknown)} in {where}. "
                f"The {whose} has {_some(class_names)}. Leave those rows out, or rename the classes."
            )
        renumber = np.array([index[name] for name in self.class_names], dtype=np.int64)
        return replace(self, labels=renumber[self.labels], class_names=tuple(class_names))


class ChosenImages:
    """Some of the images of a task."""

    def __init__(self, images: Images, positions: np.ndarray) -> None:
        self._images, self._positions = images, positions

    def __len__(self) -> int:
        return len(self._positions)

    def encoded(self, positions: Sequence[int]) -> list[Encoded]:
        """Read the images at these positions, in this order, without decoding them."""
        return self._images.encoded(self._positions[np.asarray(positions, dtype=np.int64)].tolist())


def open_target(
    dataset: DatasetLike,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    max_per_class: int | None = None,
    seed: int = 0,
) -> LabelledRows:
    """The images to train on; arguments and errors as in ``load_task``, but all rows by default.

    Example:
        >>> from datasets import Dataset
        >>> rows = open_target(Dataset.from_dict({"image": [[[0.0]], [[1.0]]], "label": ["dark", "light"]}))
        >>> rows.class_names, rows.labels.tolist()
        (('dark', 'light'), [0, 1])
    """
    columns = {"image_column": image_column, "label_column": label_column}
    task = load_task(dataset, **columns, split=split, max_per_class=max_per_class, seed=seed)
    return LabelledRows(task.name, task.split, task.images, task.labels, task.class_names, task.rows, task.notes)


def open_held_out(
    dataset: DatasetLike,
    class_names: Sequence[str],
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
) -> LabelledRows:
    """All labelled images of a split held out, with the target's numbering of classes.

    Args:
        dataset: As ``open_target`` takes it.
        class_names: The target's classes; the split need not have all of them.
        image_column: Column with images; None to find it.
        label_column: Column with classes; None to find it.
        split: The split; None for a data set that is one split already.

    Raises:
        TypeError: If ``dataset`` is no data set, path or Hub id.
        NoLabelColumnError: If there is no column of labels.
        NoLabelsError: If no row has a label.
        NoRowsError: If there are no rows.
        NoSplitError: If there is no such split.
        ValueError: If it cannot be opened, a column or split cannot be found, or a label is no class of the target.
    """
    own = getattr(dataset, "split", None)
    opened = open_split(dataset, split if split is not None else None if own is None else str(own))
    sample = draw_sample(opened.data, Request(image_column, label_column, None, 0))
    labels, names = number_classes(sample.codes, sample.values, sample.columns.class_names)
    if not names:
        raise NoLabelsError(f"`dataset` must have labels, got none in the {sample.n_rows} rows of {opened.name!r}.")
    notes = (*opened.notes, *unlabelled_note(sample))
    found = LabelledRows(opened.name, opened.split, sample.images, labels, names, sample.rows, notes)
    return found.numbered_as(class_names)


def split_validation(rows: LabelledRows, fraction: float, seed: int = 0) -> tuple[LabelledRows, LabelledRows]:
    """Hold a part of the target out for validation, of each class in proportion.

    Args:
        rows: The target's images.
        fraction: Share of each class to hold out, in (0, 1). At least one image of a class is held out and one stays;
            a class of a single image stays whole.
        seed: Seed of the draw.

    Returns:
        The images to train on and those to validate on.

    Raises:
        ValueError: If the fraction is out of range, or no class has two images.

    Example:
        >>> from datasets import Dataset
        >>> rows = open_target(Dataset.from_dict({"image": [[[0.0]]] * 7, "label": list("aaaaabb")}))
        >>> train, validation = split_validation(rows, 0.4)
        >>> train.labels.tolist(), validation.labels.tolist()
        ([0, 0, 0, 1], [0, 0, 1])
    """
    if not 0 < fraction < 1:
        raise ValueError(f"`fraction` must be in (0, 1), got {fraction}. Name a validation split to take all of it.")
    if rows.labels is None:
        raise ValueError(f"`rows` must have labels, got none in {rows.name!r}.")
    priority = generator(seed, Purpose.VALIDATION).random(len(rows))
    held_out = np.zeros(len(rows), dtype=bool)
    single = []
    for label, name in enumerate(rows.class_names):
        members = np.flatnonzero(rows.labels == label)
        if len(members) == 1:
            single.append(name)
        elif len(members):
            n = min(max(1, round(fraction * len(members))), len(members) - 1)
            held_out[members[np.argsort(priority[members], kind="stable")[:n]]] = True
    if not held_out.any():
        raise ValueError(
            "`dataset` must have a class of two images or more to hold one out, got one image of each. Name a "
            "validation split, or hold out nothing (`validation=None`)."
        )
    note = f"no image of {_some(single)} in the validation part: each has a single image"
    validation = rows.take(np.flatnonzero(held_out))
    return rows.take(np.flatnonzero(~held_out)), replace(validation, notes=(note,) if single else ())


def draw_sample(data: object, request: Request) -> Sample:
    """Draw labelled rows from a data set or a stream."""
    from datasets import Dataset

    return draw_from_dataset(data, request) if isinstance(data, Dataset) else draw_from_stream(data, request)


def unlabelled_note(sample: Sample) -> tuple[str, ...]:
    """Say how many rows have no label, if any."""
    missing = sample.n_rows - sample.n_labelled
    return (f"{missing} of {sample.n_rows} rows have no label and were left out",) if missing else ()


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_LISTED])) + (", ..." if len(names) > _LISTED else "")
