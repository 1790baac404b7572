"""The frozen record of a category relationship: p(source class | target class) with the names of both."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from hf_zoosel.objectives._rows import check_probabilities

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Method = Literal["reverse", "direct"]

_SHOWN = 30  # target classes that are printed
_NAMED = 5  # classes that an error names


@dataclass(frozen=True, repr=False, eq=False)
class Relationship:
    """p(source class | target class) with the names of both.

    Args:
        matrix: The probabilities, shape ``(n_target, n_source)``, rows summing to 1; kept in float64 on the CPU.
        target_names: A name for each row, each once.
        source_names: A name for each column.
        method: How it was learned.
        strength: The chosen inverse strength of the penalty of the logistic regression; None for "direct".
        scale: What calibrates the logits of the regression; None for "direct".
        validation_accuracy: Of the regression with that strength, in [0, 1]; None for "direct".
        converged: Whether every regression reached its optimum.

    Raises:
        ValueError: If rows are not probabilities, or names are too few, too many, or of two target classes the same.
        TypeError: If ``matrix`` is not a tensor of floats.

    Example:
        >>> import torch
        >>> matrix = torch.tensor([[0.75, 0.25], [0.0, 1.0]])
        >>> related = Relationship(matrix, ("lynx", "lorry"), ("cat", "car"), "direct")
        >>> related.top(1)
        {'lynx': [('cat', 0.75)], 'lorry': [('car', 1.0)]}
        >>> print(related)
        p(source class | target class) of 2 x 2 classes, direct
        <BLANKLINE>
        lynx   cat 0.75, car 0.25
        lorry  car 1.00
    """

    matrix: Tensor
    target_names: tuple[str, ...]
    source_names: tuple[str, ...]
    method: Method
    strength: float | None = None
    scale: float | None = None
    validation_accuracy: float | None = None
    converged: bool = True

    def __post_init__(self) -> None:
        matrix = check_probabilities(self.matrix, "matrix").cpu().double().clone()
        n_target, n_source = matrix.shape
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "target_names", _checked_names(self.target_names, n_target, "target_names"))
        object.__setattr__(self, "source_names", _checked_names(self.source_names, n_source, "source_names"))
        twice = [name for i, name in enumerate(self.target_names) if name in self.target_names[:i]]
        if twice:
            raise ValueError(f"`target_names` must name each class once, got {listed(twice)} again. Rename one.")
        check_method(self.method)

    def top(self, n: int = 3) -> dict[str, list[tuple[str, float]]]:
        """Return the ``n`` most probable source classes of each target class, those of probability 0 left out."""
        if n < 1:
            raise ValueError(f"`n` must be at least 1, got {n}.")
        probs, places = self.matrix.sort(dim=1, descending=True, stable=True)
        rows = zip(self.target_names, probs[:, :n].tolist(), places[:, :n].tolist(), strict=True)
        return {
            name: [(self.source_names[s], p) for p, s in zip(values, indices, strict=True) if p > 0]
            for name, values, indices in rows
        }

    def to_pandas(self) -> "pd.DataFrame":
        """Return the matrix, a row per target class and a column per source class."""
        import pandas as pd

        index, columns = pd.Index(self.target_names, name="target"), pd.Index(self.source_names, name="source")
        return pd.DataFrame(self.matrix.numpy().copy(), index=index, columns=columns)

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draw the probabilities of the most related source classes as a heat map.

        Args:
            path: Also write the figure there; the ending says the format.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        from hf_zoosel.objectives.relationship_plot import plot_relationship

        return plot_relationship(self, path=path)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Relationship):
            return NotImplemented
        names = [field.name for field in fields(self) if field.name != "matrix"]
        same = all(getattr(self, name) == getattr(other, name) for name in names)
        return same and torch.equal(self.matrix, other.matrix)

    def __hash__(self) -> int:
        return hash((self.target_names, self.source_names, self.method, self.strength))

    def __repr__(self) -> str:
        return (
            f"Relationship(method={self.method!r}, n_target={len(self.target_names)}, "
            f"n_source={len(self.source_names)}, strength={self.strength}, scale={self.scale})"
        )

    def __str__(self) -> str:
        n_target, n_source = self.matrix.shape
        title = f"p(source class | target class) of {n_target:,} x {n_source:,} classes, {settings_of(self)}"
        width = max(map(len, self.target_names[:_SHOWN]))
        lines = [
            f"{name:{width}}  " + ", ".join(f"{source} {p:.2f}" for source, p in related)
            for name, related in list(self.top().items())[:_SHOWN]
        ]
        if n_target > _SHOWN:
            lines.append(f"and {n_target - _SHOWN:,} more: see `top()`")
        return "\n".join([title, "", *lines])


def settings_of(relationship: Relationship) -> str:
    """Return the method and what it chose in one line."""
    text, one = str(relationship.method), relationship
    if one.strength is not None:
        text += f", strength {one.strength:g}"
    if one.scale is not None:
        text += f", scale {one.scale:.3g}"
    if one.validation_accuracy is not None:
        text += f", validation accuracy {one.validation_accuracy:.3f}"
    return text


def check_method(method: str) -> None:
    """Refuse what is not the name of a way to learn the relationship."""
    if method not in get_args(Method):
        raise ValueError(f"`method` must be one of {', '.join(map(repr, get_args(Method)))}, got {method!r}.")


def listed(names: Sequence[str]) -> str:
    """Return the first few names in quotes."""
    return ", ".join(map(repr, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def _checked_names(names: Sequence[str], n: int, argument: str) -> tuple[str, ...]:
    if isinstance(names, str) or len(names) != n:
        got = repr(names) if isinstance(names, str) else f"{len(names)} names"
        raise ValueError(f"`{argument}` must be {n} names, one per class of `matrix`, got {got}.")
    return tuple(map(str, names))
