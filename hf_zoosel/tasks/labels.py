"""Labels of any type as codes while rows are read, and as classes 0..k-1 with names once they are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_zoosel.tasks.columns import Columns

MISSING = -1
LabelValue = int | str | bool


@dataclass
class LabelCoder:
    """Numbers label values in the order they come, one row at a time.

    Example:
        >>> coder = LabelCoder(column="label", is_class_label=False)
        >>> [coder.code(value) for value in ("dog", "cat", None, "dog")], coder.values
        ([0, 1, -1, 0], ['dog', 'cat'])
    """

    column: str
    is_class_label: bool
    values: list[LabelValue] = field(default_factory=list, init=False)
    _codes: dict[LabelValue, int] = field(default_factory=dict, init=False, repr=False)

    def code(self, value: object) -> int:
        """Return the code of a label, or ``MISSING``.

        Raises:
            ValueError: If the value is no class (float, list, ...) or of another type than those before it.
        """
        value = value.item() if isinstance(value, np.generic) else value
        if value is None or (self.is_class_label and value == MISSING):
            return MISSING
        if not isinstance(value, int | str) or (self.values and type(value) is not type(self.values[0])):
            expected = type(self.values[0]).__name__ if self.values else "int, str or bool"
            raise ValueError(
                f"Labels in column {self.column!r} must be {expected} in every row, got {value!r} "
                f"({type(value).__name__}). Convert the column, or pass another `label_column=`."
            )
        if value not in self._codes:
            self._codes[value] = len(self.values)
            self.values.append(value)
        return self._codes[value]


def read_codes(dataset: "Dataset", columns: "Columns") -> tuple[np.ndarray, list[LabelValue]]:
    """Read the label column of a map-style data set, and no other, through Arrow.

    Returns:
        The code of each row, int64 ``(n_rows,)``, ``MISSING`` where there is no label; and the value of each code.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = dataset.with_format("arrow").select_columns([columns.label])[:].column(0)
    if pa.types.is_null(column.type):
        return np.full(len(dataset), MISSING), []
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values = pc.unique(column).drop_null()
    codes = pc.fill_null(pc.index_in(column, value_set=values), MISSING).to_numpy().astype(np.int64)
    listed = values.to_pylist()
    if columns.class_names is not None and MISSING in listed:
        codes[codes == listed.index(MISSING)] = MISSING
    return codes, listed


def number_classes(
    codes: np.ndarray, values: Sequence[LabelValue], names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Renumber codes to 0..k-1 in the order of their values.

    Args:
        codes: Of the drawn rows, none missing, shape ``(n,)``.
        values: The value of each code.
        names: Class names by value, for a ClassLabel column.

    Returns:
        Labels int64 ``(n,)`` and the class names ``(k,)``.

    Example:
        >>> number_classes(np.array([0, 1, 0, 2]), [30, -1, 7], None)
        (array([2, 0, 2, 1]), ('-1', '7', '30'))
    """
    present: list[int] = sorted(np.unique(codes).tolist(), key=values.__getitem__)
    renumbered = np.zeros(len(values), dtype=np.int64)
    renumbered[present] = np.arange(len(present))
    return renumbered[codes], tuple(class_name(values[code], names) for code in present)


def class_name(value: object, names: Sequence[str] | None) -> str:
    """Name of the class a label value stands for; ``names`` are those of a ClassLabel column."""
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return str(value)
