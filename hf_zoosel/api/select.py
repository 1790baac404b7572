"""select_source: which part of the pre-training data to mix in."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_zoosel.api.arguments import whole_number
from hf_zoosel.features import Runtime, Team, join_team, pick_dtype
from hf_zoosel.features.source_features import source_features
from hf_zoosel.features.statistics import source_statistics
from hf_zoosel.features.store import default_cache_dir
from hf_zoosel.selection import Clusters, Groups, SourceSelection, cluster, select_groups
from hf_zoosel.tasks.rows import SourceRows, open_rows
from hf_zoosel.tasks.views import DatasetView, classes_of, rows_of
from hf_zoosel.zoo import Candidate, SourceStats, Spec, name_models, resolve


def select_source(
    target: Any,
    source: Any,
    model: Spec,
    *,
    num_classes: int | None = 100,
    method: str = "uot",
    options: Mapping[str, str | int | float | bool | None] | None = None,
    num_clusters: int | None = None,
    num_target_clusters: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    source_image_column: str | None = None,
    source_label_column: str | None = None,
    source_split: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    dtype: str = "auto",
    memory: int = 2**30,
    num_workers: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> SourceSelection:
    """Choose the part of the pre-training data that is worth training with beside the target.

    Every image of both data sets is seen once through the model; class means are kept, so that another method
    or number of classes costs nothing, and a pass that was interrupted goes on where it stopped. Under
    ``accelerate launch`` or torchrun the processes share the images and all return the same selection.

    Args:
        target: The data set to fine-tune on, as ``rank_models`` takes it, all of its images.
        source: The pre-training data: a data set likewise, streamed or not; or statistics of it, a ``SourceStats`` or
            the path of a ``source_stats.safetensors`` that was published with the model.
        model: The checkpoint to look through: a name, id, folder, module or ``(module, transform)``.
        num_classes: Source classes to choose, or clusters; None with ``method="all"``.
        method: A name in ``hf_zoosel.selection.STRATEGIES``.
        options: Its options.
        num_clusters: Clusters to make of a source without labels; its labels are not used if this is given.
        num_target_clusters: The same for a target without labels.
        image_column: Column of the target's images; found from the features if None.
        label_column: Column of its labels; found if None.
        split: Its split; the train split if None.
        source_image_column: Column of the source's images.
        source_label_column: Column of its labels.
        source_split: Its split.
        seed: Of what is random: the clusters, and the method ``"random"``.
        batch_size: Images a forward pass; 2 a thread on a CPU and 128 on a GPU if None; halved when memory runs out.
        device: Where the network runs; the best there is if None.
        dtype: ``"auto"`` (bfloat16 on a GPU, float32 on a CPU), ``"float32"``, ``"bfloat16"``, ``"float16"``.
        memory: Bytes of preprocessed pixels held at a time.
        num_workers: Threads that decode; one per core, at most 16, if None.
        cache: Folder to keep statistics and features in; ``$HF_HOME/zoosel`` if None.
        progress: Whether to show progress bars.

    Returns:
        The selection: ``.classes``, ``.mass``, ``.coverage``, and ``.dataset()``, the chosen rows of the source.

    Raises:
        ValueError: If an argument is out of range, a data set has neither labels nor a number of clusters, the
            statistics are of another checkpoint, or ``num_classes`` is more than there are.
        hf_zoosel.zoo.CandidateError: If the model cannot be used.

    Reference:
        Liu et al., "Improved Fine-Tuning by Better Leveraging Pre-Training Data", NeurIPS 2022,
        https://arxiv.org/abs/2111.12292: 100 classes by unbalanced optimal transport between class means.

    Example:
        >>> import numpy as np, timm
        >>> from datasets import Dataset
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        >>> images[::2] //= 4
        >>> source = Dataset.from_dict({"image": list(images), "label": ["dark", "light"] * 4})
        >>> target = Dataset.from_dict({"image": list(images[:4] // 2), "label": ["night", "dusk"] * 2})
        >>> model = timm.create_model("test_resnet")
        >>> selection = select_source(target, source, model, num_classes=1, progress=False)
        >>> len(selection.dataset())
        4
    """
    team = join_team(device)
    runtime = Runtime(
        team.device,
        pick_dtype(dtype, team.device),
        whole_number("batch_size", batch_size),
        whole_number("memory", memory),
        whole_number("num_workers", num_workers),
    )
    folder = (default_cache_dir() if cache is None else Path(cache).expanduser()) / "statistics"
    ((name, spec),) = name_models([model]).items()
    look = _Look(resolve(spec, name), runtime, team, folder, seed, progress)
    target_rows = open_rows(target, image_column=image_column, label_column=label_column, split=split)
    target_side = look.through(target_rows, whole_number("num_target_clusters", num_target_clusters), "target")
    if isinstance(source, SourceStats) or _is_statistics(source):
        source_side = _published(source, look.candidate)
    else:
        rows = open_rows(
            source, image_column=source_image_column, label_column=source_label_column, split=source_split
        )
        source_side = look.through(rows, whole_number("num_clusters", num_clusters), "source")
    selection = select_groups(
        source_side.groups, target_side.groups, k=num_classes, method=method, options=options, seed=seed
    )
    chosen_rows = source_side.rows_in([one.index for one in selection.classes])
    return replace(
        selection,
        unit="class" if source_side.clusters is None else "cluster",
        source=source_side.name,
        target=target_side.name,
        rows=chosen_rows,
        revisions={
            "model": look.candidate.revision,
            "source": source_side.fingerprint,
            "target": target_side.fingerprint,
        },
        notes=(*selection.notes, *_alike(source_side, target_side), *source_side.notes, *target_side.notes),
        view=source_side.view(source, [one.name for one in selection.classes], chosen_rows),
    )


@dataclass(frozen=True)
class _Side:
    """Source or target through the model: its groups, and where they come from."""

    name: str
    groups: Groups
    notes: tuple[str, ...] = ()
    fingerprint: str | None = None
    rows: SourceRows | None = None
    clusters: Clusters | None = None
    row_numbers: Tensor | None = None

    def rows_in(self, indices: Sequence[int]) -> tuple[int, ...] | None:
        """Rows of these clusters; None for classes, which are known by name."""
        if self.clusters is None or self.row_numbers is None:
            return None
        return tuple(self.row_numbers[torch.isin(self.clusters.labels, torch.tensor(indices))].tolist())

    def view(self, data: Any, classes: Sequence[str], rows: Sequence[int] | None) -> DatasetView | None:
        """The chosen rows of the data, where there is data."""
        if self.rows is None:
            return None
        columns = self.rows.columns
        if rows is not None:
            return rows_of(data, self.rows.split, rows)
        if columns.label is None:
            return None
        names = columns.class_names
        return classes_of(data, self.rows.split, label_column=columns.label, label_names=names, classes=classes)


@dataclass(frozen=True)
class _Look:
    """How a data set is seen through the model."""

    candidate: Candidate
    runtime: Runtime
    team: Team
    folder: Path
    seed: int
    progress: bool

    def through(self, rows: SourceRows, n_clusters: int | None, what: str) -> _Side:
        """Mean features of the classes of a data set, or of clusters of it."""
        options: Any = {
            "runtime": self.runtime,
            "team": self.team,
            "folder": self.folder,
            "progress": self.progress,
        }
        if n_clusters is not None:
            return self._clusters(rows, n_clusters, options)
        if not rows.is_labelled:
            wanted = "num_clusters" if what == "source" else "num_target_clusters"
            raise ValueError(
                f"`{what}` must have labels, got none in {rows.name!r}. Name the column (`label_column=` or "
                f"`source_label_column=`), or pass `{wanted}=` to cluster its features."
            )
        seen = source_statistics(self.candidate, rows, **options)
        notes = (*rows.notes, *(() if seen.provenance is None else seen.provenance.notes))
        return _Side(rows.name, _groups(seen, rows.name), notes, rows.fingerprint, rows)

    def _clusters(self, rows: SourceRows, n_clusters: int, options: dict[str, Any]) -> _Side:
        """Clusters of all rows, made by one process of everybody's features."""
        if self.team.size > 1:
            raise ValueError(
                f"`num_clusters` must be None on several processes, got {n_clusters} on {self.team.size}. "
                "Cluster on one; the features it needs are kept."
            )
        seen = source_features(self.candidate, rows, **options)
        clusters = cluster(seen.blocks, n_clusters, seed=self.seed)
        notes = (*rows.notes, *seen.provenance.notes)
        return _Side(rows.name, clusters.groups, notes, rows.fingerprint, rows, clusters, seen.rows())


def _groups(seen: SourceStats, name: str) -> Groups:
    names = seen.class_names or tuple(map(str, range(len(seen.counts))))
    try:
        return Groups(seen.means, seen.counts, names)
    except ValueError as error:
        raise ValueError(f"The classes of {name!r} cannot be compared: {error}") from None


def _is_statistics(source: Any) -> bool:
    return isinstance(source, str | os.PathLike) and Path(source).suffix == ".safetensors"


def _published(source: Any, candidate: Candidate) -> _Side:
    """Statistics in the place of the data."""
    seen = source if isinstance(source, SourceStats) else SourceStats.load(Path(source).expanduser())
    seen.check_matches(candidate)
    made_of = seen.provenance
    name = "source" if made_of is None else made_of.dataset
    return _Side(name, _groups(seen, name), fingerprint=None if made_of is None else made_of.fingerprint)


def _alike(source: _Side, target: _Side) -> list[str]:
    if source.fingerprint is None or source.fingerprint != target.fingerprint:
        return []
    return ["Source and target are the same data set: the selection says nothing."]
