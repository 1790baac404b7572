"""Part of a data set as a data set of its own: the rows of some classes, or rows by number."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from hf_zoosel.tasks.labels import MISSING, class_name
from hf_zoosel.tasks.opening import DatasetLike, open_split

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@dataclass(frozen=True, eq=False)
class DatasetView:
    """Some rows of one split; opened when it is called.

    Attributes:
        dataset: The data set as it was given.
        split: The split that was read, empty if it was given without one.
        label_column: Where the classes are; None where rows are taken by number.
        label_names: Names of a ClassLabel column.
        classes: Names of the classes to take; None to take rows by number.
        rows: Numbers of the rows to take, ascending.
    """

    dataset: DatasetLike
    split: str
    label_column: str | None
    label_names: tuple[str, ...] | None
    classes: frozenset[str] | None
    rows: Sequence[int] = ()

    def __call__(self) -> Union["Dataset", "IterableDataset"]:
        """The rows, in the order and with all the columns of the data set, not decoded before they are asked for."""
        from datasets import Dataset, IterableDataset

        given = isinstance(self.dataset, Dataset | IterableDataset)
        data = open_split(self.dataset, None if given else self.split or None).data
        if isinstance(data, Dataset):
            return data.select(self.rows if self.classes is None else self._of_classes(data))
        if self.classes is None:
            wanted = frozenset(self.rows)
            return data.filter(lambda _, row: row in wanted, with_indices=True)
        return data.filter(self._is_wanted, input_columns=[self.label_column])

    def _of_classes(self, data: "Dataset") -> list[int]:
        labels = data.with_format("arrow").select_columns([self.label_column])[:].column(0).to_pylist()
        return [row for row, label in enumerate(labels) if self._is_wanted(label)]

    def _is_wanted(self, label: object) -> bool:
        if label is None or (self.label_names is not None and label == MISSING):
            return False
        return class_name(label, self.label_names) in (self.classes or ())


def classes_of(
    dataset: DatasetLike,
    split: str,
    *,
    label_column: str,
    label_names: Collection[str] | None,
    classes: Collection[str],
) -> DatasetView:
    """A view of the rows of some classes, by name.

    Example:
        >>> from datasets import Dataset
        >>> pets = Dataset.from_dict({"image": [[[0.0]]] * 4, "label": ["cat", "dog", "eel", "dog"]})
        >>> view = classes_of(pets, "", label_column="label", label_names=None, classes=["dog", "eel"])
        >>> view()["label"][:]
        ['dog', 'eel', 'dog']
    """
    names = None if label_names is None else tuple(label_names)
    return DatasetView(dataset, split, label_column, names, frozenset(classes))


def rows_of(dataset: DatasetLike, split: str, rows: Sequence[int]) -> DatasetView:
    """A view of rows by number."""
    return DatasetView(dataset, split, None, None, None, sorted(rows))
