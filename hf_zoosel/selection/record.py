"""The frozen record of a selection: which part of the source, how much of it, and which target class asked for it.

Records compare by value, survive pickle and ``copy.deepcopy``, and hold no number that is not finite.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from hf_zoosel.ranking.mapping import FrozenMapping
from hf_zoosel.ranking.record import Setting
from hf_zoosel.ranking.shown import Shown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hf_zoosel.ranking.content import Content

Unit = Literal["class", "cluster", "sample"]
_NUMBERS = (float, float | None)
_EMPTY: FrozenMapping[Any] = FrozenMapping()


@dataclass(frozen=True, slots=True)
class SourceClass:
    """A class or cluster of the source.

    Args:
        name: Its name.
        index: Its position in the source.
        mass: Its importance, at least 0.
        share: Its share of the mass of the whole source, in [0, 1].
        count: Its samples.
        nearest: The target class nearest to it.
        distance: Cosine distance to that one, in [0, 2].
    """

    name: str
    index: int
    mass: float
    share: float
    count: int
    nearest: str
    distance: float


@dataclass(frozen=True, slots=True)
class Server:
    """A chosen source class that serves a target class.

    Args:
        name: Its name.
        index: Its position in the source.
        share: Share of the target class's mass that comes from it; None for a method without a plan.
        distance: Cosine distance from it to the target class.
    """

    name: str
    index: int
    share: float | None
    distance: float


@dataclass(frozen=True, slots=True)
class TargetClass:
    """How one target class is served by the selection.

    Args:
        name: Its name.
        index: Its position in the target.
        count: Its samples.
        nearest: The chosen source class nearest to it.
        distance: Cosine distance to that one, in [0, 2].
        quantile: Share of source classes that are nearer than this to their own nearest neighbour, in [0, 1]: 0 is as
            near as can be. None where the source is a single class.
        least_distance: Distance to the nearest of all source classes, chosen or not.
        share_well: Share of its mass from chosen source classes within ``near_limit``; None without a plan or limit.
        share_badly: Share of its mass from chosen source classes beyond it. What is left is from classes not chosen.
        served_by: The chosen classes that serve it most, five at most; by distance for a method without a plan.
    """

    name: str
    index: int
    count: int
    nearest: str
    distance: float
    quantile: float | None
    least_distance: float
    share_well: float | None = None
    share_badly: float | None = None
    served_by: tuple[Server, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "served_by", tuple(self.served_by))


@dataclass(frozen=True, slots=True, repr=False)
class SourceSelection(Shown):
    """The part of a source to train with.

    Args:
        method: Name of the strategy.
        n_chosen: How many source classes were chosen.
        ranked: All source classes in order of importance; the first ``n_chosen`` are chosen.
        coverage: How each target class is served, in the target's order.
        n_effective: Effective number of source classes, (sum of masses)^2 / sum of squared masses (inverse Simpson
            index): n for equal masses, 1 where one class has all.
        transport_cost: Mean cost of a unit of mass in the strategy's ground cost; None without a plan.
        near_limit: Cosine distance within which 95 % of source classes have their nearest neighbour; a target class
            beyond it is served badly. None where the source is a single class.
        unit: What was chosen from: classes, clusters, or single samples.
        source: Name of the source.
        target: Name of the target.
        options: Every option of the strategy.
        seed: Seed of what is random.
        rows: Rows of the source that were chosen, ascending as in ``dataset()``, where they are known.
        weights: Mass of each of ``rows``, to draw them by; None where what was chosen are classes or clusters.
        details: What the solver says of itself.
        notes: What a person should know about this result.
        versions: Package -> version that computed it.
        revisions: What was read (source, target, model) -> its revision; ``source_images`` -> number of rows and a
            digest of 16 images, by which row numbers are known to be of the same data.
        view: Opens the chosen rows; neither saved nor compared.

    Raises:
        ValueError: If nothing is chosen, an index comes twice, or a number is not finite.
        TypeError: If an option is not a string, a number, a bool or None.

    Example:
        >>> cat = SourceClass("cat", 1, 0.9, 0.9, 50, "lynx", 0.1)
        >>> car = SourceClass("car", 0, 0.1, 0.1, 50, "lynx", 0.8)
        >>> lynx = TargetClass("lynx", 0, 20, "cat", 0.1, 0.0, 0.1)
        >>> selection = SourceSelection("uot", 1, (cat, car), (lynx,), n_effective=1.22)
        >>> [c.name for c in selection.classes], selection.mass
        (['cat'], (0.1, 0.9))
    """

    method: str
    n_chosen: int
    ranked: tuple[SourceClass, ...]
    coverage: tuple[TargetClass, ...]
    n_effective: float
    transport_cost: float | None = None
    near_limit: float | None = None
    unit: Unit = "class"
    source: str = "source"
    target: str = "target"
    options: Mapping[str, Setting] = _EMPTY
    seed: int = 0
    rows: tuple[int, ...] | None = None
    weights: tuple[float, ...] | None = None
    details: Mapping[str, Setting] = _EMPTY
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = _EMPTY
    revisions: Mapping[str, str | None] = _EMPTY
    view: Callable[[], Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("ranked", "coverage", "notes", "rows", "weights"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("options", "details", "versions", "revisions"):
            object.__setattr__(self, name, FrozenMapping(getattr(self, name)))
        _check(self)

    @property
    def classes(self) -> tuple[SourceClass, ...]:
        """The chosen classes, most important first."""
        return self.ranked[: self.n_chosen]

    @property
    def rejected(self) -> tuple[SourceClass, ...]:
        """The other classes, those nearest to being chosen first."""
        return self.ranked[self.n_chosen :]

    @property
    def mass(self) -> tuple[float, ...]:
        """Mass of every source class, chosen or not, in the source's own order."""
        return tuple(c.mass for c in sorted(self.ranked, key=lambda c: c.index))

    @property
    def badly_served(self) -> tuple[TargetClass, ...]:
        """The target classes with no chosen source class within ``near_limit``, the furthest first."""
        if self.near_limit is None:
            return ()
        far = [t for t in self.coverage if t.distance > self.near_limit]
        return tuple(sorted(far, key=lambda t: (-t.distance, t.name)))

    @property
    def advice(self) -> str:
        """Whether mixing the chosen part in is likely to help, and at what weight, as far as distances tell."""
        from hf_zoosel.selection.advice import advice_of

        return advice_of(self)

    def __len__(self) -> int:
        return self.n_chosen or len(self.rows or ())

    def dataset(self) -> Any:
        """Return the chosen rows of the source, a ``datasets.Dataset`` or, of a stream, an ``IterableDataset``.

        Raises:
            ValueError: If the selection was made from statistics, or read from a file: neither holds the data.
        """
        if self.view is None:
            raise ValueError(
                "`dataset` must be known to a selection, got one made from statistics or read from a file. "
                "Select the rows of `classes` from the source yourself, or call `select_source` with the data."
            )
        return self.view()

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row per source class in order of importance, with a column that says whether it is chosen."""
        from hf_zoosel.selection.tables import to_pandas

        return to_pandas(self)

    def coverage_to_pandas(self) -> "pd.DataFrame":
        """Return one row per target class: how near the selection comes to it, and which classes serve it."""
        from hf_zoosel.selection.tables import coverage_to_pandas

        return coverage_to_pandas(self)

    def _content(self) -> "Content":
        from hf_zoosel.selection.content import content_of

        return content_of(self)

    def __repr__(self) -> str:
        return (
            f"SourceSelection(method={self.method!r}, source={self.source!r}, target={self.target!r}, "
            f"unit={self.unit!r}, n_chosen={len(self)}, n_target={len(self.coverage)})"
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draw the masses, where the line was drawn, and how near the selection comes to each target class.

        Args:
            path: Also write the figure there; the ending says the format.

        Returns:
            The figure.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If the selection holds no classes.
        """
        from hf_zoosel.selection.plot import plot_selection

        return plot_selection(self, path=path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers, ready for JSON."""
        from hf_zoosel.selection.storage import to_dict

        return to_dict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "SourceSelection":
        """Read what ``to_dict`` returned.

        Raises:
            ValueError: If it is no selection, a damaged one, or one of a newer version.
        """
        from hf_zoosel.selection.storage import from_dict

        return from_dict(data)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the selection as JSON, all of it or nothing; missing folders are made.

        Returns:
            Where it was written.
        """
        from hf_zoosel.selection.storage import save

        return save(self, Path(path))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "SourceSelection":
        """Read a selection written by ``save``.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is no selection, is damaged, or comes from a newer version.
        """
        from hf_zoosel.selection.storage import load

        return load(Path(path))


def _check(selection: SourceSelection) -> None:
    """Refuse what a file could not hold or a table could not show."""
    if selection.unit not in get_args(Unit):
        raise ValueError(f"`unit` must be one of {list(get_args(Unit))}, got {selection.unit!r}.")
    if not (0 < selection.n_chosen <= len(selection.ranked)) and not (selection.rows and selection.n_chosen == 0):
        raise ValueError(
            f"`n_chosen` must be from 1 to the {len(selection.ranked)} source classes, or 0 beside `rows`, "
            f"got {selection.n_chosen}."
        )
    _check_weights(selection.rows or (), selection.weights)
    for name in ("ranked", "coverage"):
        indices = [one.index for one in getattr(selection, name)]
        if len(set(indices)) < len(indices):
            raise ValueError(f"`{name}` must hold every class once, got an index twice.")
    _check_finite(selection, *selection.ranked, *selection.coverage)
    _check_finite(*(server for one in selection.coverage for server in one.served_by))
    for name, setting in (*selection.options.items(), *selection.details.items()):
        if not isinstance(setting, Setting):
            raise TypeError(f"`options` must be strings, numbers, bools or None, got {setting!r} for {name!r}.")
        if isinstance(setting, float) and not math.isfinite(setting):
            raise ValueError(f"`options` must be finite, got {setting} for {name!r}. Use None.")


def _check_weights(rows: Sequence[int], weights: Sequence[float] | None) -> None:
    if weights is not None and len(weights) != len(rows):
        raise ValueError(f"`weights` must be one for each of {len(rows)} `rows`, got {len(weights)}.")
    wrong = [weight for weight in weights or () if not 0 <= weight < math.inf]
    if wrong:
        raise ValueError(f"`weights` must be finite and at least 0, got {wrong[0]}.")


def _check_finite(*records: SourceSelection | SourceClass | TargetClass | Server) -> None:
    for kind in {type(record): None for record in records}:
        alike = [record for record in records if type(record) is kind]
        for name in [one.name for one in fields(kind) if one.type in _NUMBERS]:
            values = list(map(attrgetter(name), alike))
            if not math.isfinite(sum(filter(None, values))):  # so is every one of them, or it is looked for
                for value in values:
                    if value is not None and not math.isfinite(value):
                        raise ValueError(f"`{name}` must be finite, got {value} in a {kind.__name__}.")
