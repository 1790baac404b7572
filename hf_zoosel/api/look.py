"""How a data set is seen through a model: as classes, as clusters, or sample by sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_zoosel.features import Runtime, SourceFeatures, Team, source_features
from hf_zoosel.features.statistics import source_statistics
from hf_zoosel.selection import Groups, Pool, cluster
from hf_zoosel.tasks.rows import SourceRows
from hf_zoosel.tasks.views import DatasetView, classes_of, rows_of
from hf_zoosel.zoo import Candidate, SourceStats
from hf_zoosel.zoo.provenance import Provenance


@dataclass(frozen=True)
class Origin:
    """What was read.

    Attributes:
        name: Of the data set.
        fingerprint: What the data set is; None if that cannot be told.
        images_digest: What its images are, as ``SourceRows`` has it; None where they were not read.
        notes: What a person should know about how it was read.
    """

    name: str
    fingerprint: str | None
    images_digest: str | None = None
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(rows: SourceRows, provenance: Provenance | None, what: str) -> "Origin":
        """A data set, once it was read; ``what`` is "source" or "target"."""
        notes = () if provenance is None else provenance.notes_on(what)
        return Origin(rows.name, rows.fingerprint, rows.images_digest, (*rows.notes, *notes))


@dataclass(frozen=True)
class Side:
    """Source or target through the model.

    Attributes:
        origin: What was read.
        groups: Its classes or clusters.
        rows: The data; None where statistics stand in for it.
        cluster_of_row: Row numbers and the cluster of each, both ``(n,)``, where these are clusters.
    """

    origin: Origin
    groups: Groups
    rows: SourceRows | None = None
    cluster_of_row: tuple[Tensor, Tensor] | None = None

    def rows_in(self, indices: Sequence[int]) -> tuple[int, ...] | None:
        """Rows of these clusters, ascending; None for classes, which are known by name."""
        if self.cluster_of_row is None:
            return None
        rows, clusters = self.cluster_of_row
        return tuple(rows[torch.isin(clusters, torch.tensor(indices))].sort().values.tolist())

    def view(self, data: Any, classes: Sequence[str], rows: Sequence[int] | None) -> DatasetView | None:
        """The chosen rows of the data, where there is data."""
        if self.rows is None:
            return None
        if rows is not None:
            return rows_of(data, self.rows.split, rows)
        columns = self.rows.columns
        if columns.label is None:
            return None
        names = columns.class_names
        return classes_of(data, self.rows.split, label_column=columns.label, label_names=names, classes=classes)


@dataclass(frozen=True)
class Look:
    """How data sets are seen.

    Attributes:
        candidate: The model.
        runtime: How it runs.
        team: The processes that share the work.
        folder: Where passes are kept.
        seed: Of clusters.
        progress: Whether to show progress bars.
    """

    candidate: Candidate
    runtime: Runtime
    team: Team
    folder: Path
    seed: int
    progress: bool

    def through(self, rows: SourceRows, n_clusters: int | None, what: str) -> Side:
        """Mean features of the classes of a data set, or of clusters of it.

        Raises:
            ValueError: If it has neither labels nor a number of clusters.
        """
        if n_clusters is not None:
            return self._clusters(rows, n_clusters, what)
        if not rows.is_labelled:
            wanted = "num_clusters" if what == "source" else "num_target_clusters"
            raise ValueError(
                f"`{what}` must have labels, got none in {rows.name!r}. Name the column (`label_column=` or "
                f"`source_label_column=`), or pass `{wanted}=` to cluster its features."
            )
        seen = source_statistics(self.candidate, rows, **self._options)
        return Side(Origin.of(rows, seen.provenance, what), groups_of(seen, rows.name), rows)

    def samples(self, rows: SourceRows) -> tuple[SourceFeatures, Pool]:
        """Features of every row, on disk, and how to read those of this process."""
        seen = source_features(self.candidate, rows, **self._options)
        return seen, Pool(seen.blocks, seen.rows(), self.team.gather, self.team.is_main)

    def _clusters(self, rows: SourceRows, n_clusters: int, what: str) -> Side:
        seen, pool = self.samples(rows)
        try:
            clusters = cluster(pool, n_clusters, seed=self.seed)
        finally:
            seen.discard(self.team)
        everywhere = self.team.gather((pool.rows, clusters.labels))
        of_row = torch.cat([one[0] for one in everywhere]), torch.cat([one[1] for one in everywhere])
        return Side(Origin.of(rows, seen.provenance, what), clusters.groups, rows, of_row)

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("runtime", "team", "folder", "progress")}


def groups_of(seen: SourceStats, name: str) -> Groups:
    """Classes from their statistics.

    Raises:
        ValueError: If they cannot be compared, a mean is not finite or all zero say.
    """
    names = seen.class_names or tuple(map(str, range(len(seen.counts))))
    try:
        return Groups(seen.means, seen.counts, names)
    except ValueError as error:
        raise ValueError(f"The classes of {name!r} cannot be compared: {error}") from None
