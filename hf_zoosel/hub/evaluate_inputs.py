"""The needs of a metric as arguments of ``compute``: their shapes, and how they become tensors and Arrow columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor


@dataclass(frozen=True)
class Input:
    """One argument of ``compute``.

    Attributes:
        dtype: What its entries are.
        shape: Names of its axes.
        meaning: What it is.
        example: An expression of numpy, with ``rng`` a random generator, whose sizes fit the other examples.
    """

    dtype: Literal["float64", "int64", "string"]
    shape: tuple[str, ...]
    meaning: str
    example: str

    @property
    def shape_text(self) -> str:
        """The shape as Python would write it."""
        return f"({', '.join(self.shape)}{',' if len(self.shape) == 1 else ''})"


_N, _ZOO = "n_samples", "n_candidates"
_GRADIENT = Input("float64", (_N, "n_projected"), "per-sample gradients, projected", "rng.normal(size=(40, 16))")

# One entry a row: evaluate streams these.
COLUMNS: Mapping[str, Input] = MappingProxyType(
    {
        "features": Input("float64", (_N, "n_features"), "input of the classifier", "rng.normal(size=(40, 8))"),
        "source_logits": Input(
            "float64", (_N, "n_source_classes"), "output of the source head", "rng.normal(size=(40, 5))"
        ),
        "source_probs": Input(
            "float64", (_N, "n_source_classes"), "its softmax", "rng.dirichlet(np.ones(5), size=40)"
        ),
        "map_statistics": Input(
            "float64",
            (_N, "2"),
            "`hf_zoosel.metrics.feature_metrics.map_statistics` of the maps",
            "rng.random((40, 2))",
        ),
        "gradients": _GRADIENT,
        "gradients_logits": _GRADIENT,
        "gradients_random": _GRADIENT,
        "labels": Input("int64", (_N,), "class ids, any integers", "np.arange(40) % 4"),
        "reference": Input(
            "float64", (_N, "n_reference_features"), "features by a reference network", "rng.normal(size=(40, 6))"
        ),
        "scores": Input("float64", (_ZOO, "n_metrics"), "scores, NaN where there is none", "rng.normal(size=(4, 3))"),
        "n_parameters": Input("int64", (_ZOO,), "parameters of the whole network", "[4_652_008, 25_557_032]"),
        "source_accuracy": Input("float64", (_ZOO,), "accuracy on the source data, in [0, 1]", "[0.751, 0.804]"),
        "identity": Input("string", (_ZOO,), "text that no other candidate has", '["model-a", "model-b"]'),
    }
)

# Given once, as options of `compute`.
FACTS: Mapping[str, Input] = MappingProxyType(
    {
        "source_means": Input(
            "float64", ("n_source_classes", "n_features"), "mean features of source classes", "rng.normal(size=(5, 8))"
        ),
        "source_counts": Input("int64", ("n_source_classes",), "source samples of each class", "np.full(5, 300)"),
        "source_features": Input(
            "float64", ("n_source_samples", "n_features"), "features of source samples", "rng.normal(size=(30, 8))"
        ),
        "source_labels": Input("int64", ("n_source_samples",), "their classes", "np.arange(30) % 3"),
    }
)
INPUTS: Mapping[str, Input] = MappingProxyType({**COLUMNS, **FACTS})

_KINDS = {"float64": "fiu", "int64": "iub", "string": "U"}
_CALLED = {"float64": "numbers", "int64": "integers", "string": "texts"}


def as_array(name: str, value: Any) -> np.ndarray:
    """Check the shape and type of an argument and return it as an array: float64, int64 or text.

    Args:
        name: Which one.
        value: A numpy array, a torch tensor on any device, a pandas column, or nested lists.

    Raises:
        ValueError: If it is not of the shape in ``INPUTS``.
        TypeError: If its entries are of another type.
    """
    asked = INPUTS[name]
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.double() if value.is_floating_point() else value
    try:
        array = np.asarray(value)
        array = np.asarray(array.tolist()) if array.dtype == object else array
    except ValueError:  # numpy's own text speaks of "inhomogeneous" shapes
        raise ValueError(f"`{name}` must have rows of one length, got rows of several.") from None
    if array.ndim != len(asked.shape):
        raise ValueError(f"`{name}` must be {len(asked.shape)}-D {asked.shape_text}, got shape {array.shape}.")
    if array.size and array.dtype.kind not in _KINDS[asked.dtype]:
        raise TypeError(f"`{name}` must be {_CALLED[asked.dtype]}, got {array.dtype}.")
    return array if asked.dtype == "string" else array.astype(asked.dtype, copy=False)


def as_tensor(name: str, value: Any) -> Tensor:
    """The same as a tensor of its own memory."""
    return torch.tensor(as_array(name, value))


def from_column(name: str, column: pa.ChunkedArray) -> Tensor | list[str]:
    """What was streamed, as a tensor, or as a list of texts.

    Raises:
        ValueError: If batches differ in their number of columns.
    """
    asked = INPUTS[name]
    if asked.dtype == "string":
        return [str(text) for text in column.to_pylist()]
    if len(asked.shape) == 1:
        return torch.tensor(column.to_numpy())
    lengths = {int(length) for chunk in column.chunks for length in np.unique(chunk.value_lengths())}
    if len(lengths) > 1:
        raise ValueError(f"`{name}` must have as many columns in every batch, got {sorted(lengths)}.")
    width = lengths.pop() if lengths else 0
    rows = [chunk.flatten().to_numpy().reshape(len(chunk), width) for chunk in column.chunks]
    return torch.from_numpy(np.concatenate(rows)) if rows else torch.empty(0, 0, dtype=torch.float64)
