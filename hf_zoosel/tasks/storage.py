"""Where the encoded images of a task lie: a column of a data set, a list in memory, a temporary file."""

import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hf_zoosel.tasks.images import Encoded, encode
from hf_zoosel.tasks.labels import MISSING

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_BATCH_BYTES = 16 << 20
_BATCH_ROWS = 10_000


class Images(Protocol):
    """The images of a task, read on demand."""

    def __len__(self) -> int: ...

    def encoded(self, positions: Sequence[int]) -> list[Encoded]:
        """Read the images at these positions of the task, in this order, without decoding them."""
        ...


def column_value(value: "pa.Scalar") -> object:
    """Convert one cell of an image column to Python; nested lists of numbers become an array without copies."""
    import pyarrow as pa

    if isinstance(value, pa.ExtensionScalar):  # datasets.Array2D and its like
        value = value.value
    if not value.is_valid or not isinstance(value, pa.ListScalar):
        return value.as_py()
    values, shape = value.values, [len(value.values)]
    while _is_list(values.type):
        lengths = pa.compute.unique(pa.compute.list_value_length(values))
        if len(lengths) != 1 or not lengths.is_valid().to_pylist()[0]:
            return value.as_py()  # ragged: no image, and encode says so
        shape.append(lengths[0].as_py())
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(shape)


class ColumnImages:
    """Rows of one column of a map-style data set, read through Arrow: its transform and format are not applied.

    Args:
        dataset: Holds the images.
        column: The column they are in.
        rows: Row of each image, shape ``(n_samples,)``.
        mode: See ``encode``.
        to_value: Converts a cell to something ``encode`` takes.
    """

    def __init__(
        self,
        dataset: "Dataset",
        column: str,
        rows: np.ndarray,
        *,
        mode: str | None = None,
        to_value: "Callable[[pa.Scalar], object]" = column_value,
    ) -> None:
        self._column = dataset.with_format("arrow").select_columns([column])
        self._rows, self._mode, self._to_value = rows, mode, to_value

    def __len__(self) -> int:
        return len(self._rows)

    def encoded(self, positions: Sequence[int]) -> list[Encoded]:
        """Read the images at these positions of the task, in this order, without decoding them."""
        if len(positions) == 0:
            return []
        table = self._column[self._rows[np.asarray(positions)].tolist()]
        return [encode(self._to_value(cell), self._mode) for cell in table.column(0)]


class ListedImages:
    """Values kept in memory, as a stream yielded them."""

    def __init__(self, values: Sequence[object], *, mode: str | None = None) -> None:
        self._values, self._mode = values, mode

    def __len__(self) -> int:
        return len(self._values)

    def encoded(self, positions: Sequence[int]) -> list[Encoded]:
        """Read the images at these positions of the task, in this order, without decoding them."""
        return [encode(self._values[position], self._mode) for position in positions]


class Spool:
    """Keeps every labelled row of a stream, the images in a temporary Arrow file; about 16 MiB wait to be written."""

    def __init__(self) -> None:
        import pyarrow as pa

        cell = {"bytes": pa.large_binary(), "path": pa.string(), "dtype": pa.string(), "shape": pa.list_(pa.int64())}
        self._schema = pa.schema({"image": pa.struct(cell)})
        self._folder = tempfile.mkdtemp(prefix="hf-zoosel-")
        self._removal = weakref.finalize(self, _remove, self._folder, os.getpid())
        self._file = str(Path(self._folder, "images.arrow"))
        self._writer = pa.ipc.new_stream(self._file, self._schema)
        self._rows, self._codes = array("q"), array("q")
        self._cells: list[dict[str, Any]] = []
        self._n_bytes = 0

    def offer(self, row: int, code: int, value: object) -> None:
        """Take a row of the stream: files stay files, everything else becomes an array."""
        if code == MISSING:
            return
        self._rows.append(row)
        self._codes.append(code)
        self._cells.append(_spooled(value))
        self._n_bytes += len(self._cells[-1].get("bytes") or b"")
        if self._n_bytes > _BATCH_BYTES or len(self._cells) == _BATCH_ROWS:
            self._write()

    def finish(self, mode: str | None) -> tuple[np.ndarray, np.ndarray, Images]:
        """Return row numbers, codes and images of the rows taken; the file is removed with the images."""
        from datasets import Dataset

        self._write()
        self._writer.close()
        dataset, rows = Dataset.from_file(self._file), np.array(self._rows, dtype=np.int64)
        images = ColumnImages(dataset, "image", np.arange(len(rows)), mode=mode, to_value=_unspooled)
        self._removal.detach()
        weakref.finalize(images, _remove, self._folder, os.getpid())
        return rows, np.array(self._codes, dtype=np.int64), images

    def _write(self) -> None:
        import pyarrow as pa

        rows = [{"image": cell} for cell in self._cells]
        self._writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=self._schema))
        self._cells, self._n_bytes = [], 0


def _spooled(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {"bytes": value.get("bytes"), "path": value.get("path")}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": bytes(value)}
    if isinstance(value, str | os.PathLike):
        return {"path": os.fspath(value)}
    content = encode(value).content
    if not isinstance(content, np.ndarray):
        return {}  # null, or nothing an image could be
    return {"bytes": content.tobytes(), "dtype": content.dtype.str, "shape": list(content.shape)}


def _unspooled(cell: "pa.Scalar") -> object:
    value = cell.as_py()
    if value["dtype"] is None:
        return value
    return np.frombuffer(value["bytes"], dtype=value["dtype"]).reshape(value["shape"])


def _is_list(arrow_type: "pa.DataType") -> bool:
    import pyarrow as pa

    types = pa.types
    return types.is_list(arrow_type) or types.is_large_list(arrow_type) or types.is_fixed_size_list(arrow_type)


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # not from a forked worker, which inherits the finalizer
        shutil.rmtree(folder, ignore_errors=True)
