"""select_source: which part of the pre-training data to mix in."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hf_zoosel.api.arguments import one_candidate, whole_number
from hf_zoosel.api.look import Look, Origin, Side, groups_of
from hf_zoosel.features import Runtime, join_team, pick_dtype
from hf_zoosel.features.store import default_cache_dir
from hf_zoosel.ranking.record import CandidateResult
from hf_zoosel.selection import (
    SourceSelection,
    check_k,
    get_strategy,
    read_options,
    sample_method,
    select_groups,
    select_samples,
)
from hf_zoosel.tasks.argument_names import of_source, said_of
from hf_zoosel.tasks.rows import SourceRows, open_rows
from hf_zoosel.tasks.views import rows_of
from hf_zoosel.zoo import Candidate, SourceStats, Spec


def select_source(
    target: Any,
    source: Any,
    model: Spec | CandidateResult,
    *,
    num_classes: int | None = 100,
    num_samples: int | None = None,
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
    or number of classes costs nothing, and a pass that was interrupted loses at most the last 1,024 images. Under
    ``accelerate launch`` or torchrun the processes share the images and all return the same selection.

    Args:
        target: The data set to fine-tune on, as ``rank_models`` takes it, all of its images.
        source: The pre-training data: a data set likewise, streamed or not; or statistics of it, a ``SourceStats`` or
            the path of a ``source_stats.safetensors`` that was published with the model.
        model: The checkpoint to look through: a name, id, folder, module or ``(module, transform)``, or
            ``ranking.best``.
        num_classes: Source classes to choose, or clusters; ``method="all"`` takes the whole source whatever it is.
        num_samples: Single images to choose instead, whatever their classes; ``num_classes`` is then not used. Their
            features are kept on disk, ``4 d`` bytes each; the source need not have labels.
        method: A name in ``hf_zoosel.selection.STRATEGIES``, or for images in ``SAMPLE_METHODS``.
        options: Its options.
        num_clusters: Clusters to make of a source without labels; its labels are not used if this is given. On
            several processes the main one makes them.
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
        The selection: ``.classes``, ``.mass``, ``.coverage``, and ``.dataset()``, the chosen rows of the source. Of
        images ``.rows`` and ``.weights`` in the place of classes.

    Raises:
        ValueError: If an argument is out of range, a data set has neither labels nor a number of clusters, the
            statistics are of another checkpoint, ``num_classes`` or ``num_samples`` is more than there are, or
            ``num_samples`` comes with statistics, clusters of the source, or a method that does not choose images.
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
    num_samples = whole_number("num_samples", num_samples)
    num_classes = None if num_samples is not None else _number_of_classes(num_classes, method)
    _check(source, method, options, num_clusters, by_samples=num_samples is not None)
    team = join_team(device)
    runtime = Runtime(
        team.device,
        pick_dtype(dtype, team.device),
        whole_number("batch_size", batch_size),
        whole_number("memory", memory),
        whole_number("num_workers", num_workers),
    )
    folder = (default_cache_dir() if cache is None else Path(cache).expanduser()) / "statistics"
    look = Look(one_candidate(model), runtime, team, folder, seed, progress)
    with said_of({"dataset": "target"}):
        target_rows = open_rows(target, image_column=image_column, label_column=label_column, split=split)
    num_clusters = whole_number("num_clusters", num_clusters)
    opened = _open(source, look.candidate, source_image_column, source_label_column, source_split)
    if num_samples is None:
        _check_enough(num_classes, method, num_clusters, opened)
    target_side = look.through(target_rows, whole_number("num_target_clusters", num_target_clusters), "target")
    chosen_by: dict[str, Any] = {"method": method, "options": options, "seed": seed}
    if isinstance(opened, SourceRows) and num_samples is not None:
        return _of_samples(opened, source, target_side, look, k=num_samples, chosen_by=chosen_by)
    source_side = opened if isinstance(opened, Side) else look.through(opened, num_clusters, "source")
    return _of_groups(source_side, source, target_side, look, k=num_classes, chosen_by=chosen_by)


def _open(
    source: Any, candidate: Candidate, image_column: str | None, label_column: str | None, split: str | None
) -> SourceRows | Side:
    """The rows of the source, or published statistics in their place."""
    if _is_statistics(source):
        return _published(source, candidate)
    with said_of(of_source()):
        return open_rows(source, image_column=image_column, label_column=label_column, split=split)


def _number_of_classes(num_classes: int | None, method: str) -> int | None:
    strategy = get_strategy(method)
    if strategy.needs_k and num_classes is None:
        raise ValueError(
            f"`num_classes` must be how many source classes {method!r} shall choose, got None. Say it, or take the "
            "whole source by method='all'."
        )
    return whole_number("num_classes", num_classes) if strategy.needs_k else None


def _check_enough(k: int | None, method: str, num_clusters: int | None, opened: SourceRows | Side) -> None:
    """Refuse more classes than there are, where their number is known before an image is looked at."""
    n = num_clusters or len(opened.groups if isinstance(opened, Side) else opened.class_names or ())
    if n:
        check_k(k, get_strategy(method), n, "classes" if num_clusters is None else "clusters", "num_classes")


def _check(
    source: Any, method: str, options: Mapping[str, Any] | None, num_clusters: int | None, *, by_samples: bool
) -> None:
    """Refuse before an image is read what could not be used after."""
    read_options(get_strategy(method).options, options, method)
    if not by_samples:
        return
    sample_method(method)
    if num_clusters is not None:
        raise ValueError(f"`num_clusters` must be None beside `num_samples`, got {num_clusters}. Leave one out.")
    if _is_statistics(source):
        raise ValueError("`source` must be a data set for `num_samples`, got statistics, which hold no images.")


def _of_groups(
    source: Side, data: Any, target: Side, look: Look, *, k: int | None, chosen_by: Mapping[str, Any]
) -> SourceSelection:
    """Choose classes or clusters."""
    what = "classes" if source.cluster_of_row is None else "clusters"
    check_k(k, get_strategy(chosen_by["method"]), len(source.groups), what, "num_classes")
    selection = select_groups(source.groups, target.groups, k=k, **chosen_by)
    rows = source.rows_in([one.index for one in selection.classes])
    return replace(
        _completed(selection, source.origin, target.origin, look),
        unit="class" if source.cluster_of_row is None else "cluster",
        rows=rows,
        view=source.view(data, [one.name for one in selection.classes], rows),
    )


def _of_samples(
    rows: SourceRows, data: Any, target: Side, look: Look, *, k: int, chosen_by: Mapping[str, Any]
) -> SourceSelection:
    """Choose single images."""
    seen, pool = look.samples(rows)
    try:
        check_k(k, get_strategy(chosen_by["method"]), len(pool), "images", "num_samples")
        selection = select_samples(pool, target.groups, k=k, **chosen_by)
    finally:
        seen.discard(look.team)
    origin = Origin.of(rows, seen.provenance, "source")
    view = rows_of(data, rows.split, selection.rows or ())
    return replace(_completed(selection, origin, target.origin, look), view=view)


def _completed(selection: SourceSelection, source: Origin, target: Origin, look: Look) -> SourceSelection:
    """Add what was read to a selection."""
    return replace(
        selection,
        source=source.name,
        target=target.name,
        revisions={
            "model": look.candidate.revision,
            "source": source.fingerprint,
            "source_images": source.images_digest,
            "target": target.fingerprint,
        },
        notes=(*selection.notes, *_alike(source, target), *source.notes, *target.notes),
    )


def _is_statistics(source: Any) -> bool:
    if isinstance(source, SourceStats):
        return True
    return isinstance(source, str | os.PathLike) and Path(source).suffix == ".safetensors"


def _published(source: Any, candidate: Candidate) -> Side:
    """Statistics in the place of the data."""
    seen = source if isinstance(source, SourceStats) else SourceStats.load(Path(source).expanduser())
    seen.check_matches(candidate)
    made_of = seen.provenance
    origin = Origin("source", None) if made_of is None else Origin(made_of.dataset, made_of.fingerprint)
    return Side(origin, groups_of(seen, origin.name))


def _alike(source: Origin, target: Origin) -> list[str]:
    if source.fingerprint is None or source.fingerprint != target.fingerprint:
        return []
    return ["Source and target are the same data set: the selection says nothing."]
