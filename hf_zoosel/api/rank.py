"""rank_models: which checkpoint to fine-tune, without fine-tuning any."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

import torch

from hf_zoosel.api.arguments import whole_number
from hf_zoosel.features import Features, Runtime, Team, extract, join_team, open_store, pick_dtype
from hf_zoosel.metrics import METRICS, Metric, get_metric
from hf_zoosel.ranking import Ranking, SkippedImage, rank_candidates
from hf_zoosel.scoring import Extras, Scored, gather_extras, score, score_over_zoo
from hf_zoosel.tasks import Task, load_task
from hf_zoosel.tasks.argument_names import of_source, said_of
from hf_zoosel.zoo import Candidate, CandidateError, Spec, name_models, resolve

MetricSpec = str | Metric | Callable[..., float]
ALL = "all"  # every metric of the table
_LIBRARIES = ("hf-zoosel", "torch", "timm", "transformers", "datasets", "pillow")
logger = logging.getLogger(__name__)


def rank_models(
    dataset: Any,
    models: Sequence[Spec] | Mapping[str, Spec] | Spec | None = None,
    metric: MetricSpec | Sequence[MetricSpec] = "lfc",
    *,
    source: Any | None = None,
    reference: Spec | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    source_image_column: str | None = None,
    source_label_column: str | None = None,
    source_split: str | None = None,
    max_per_class: int | None = 25,
    seed: int = 0,
    n_bootstrap: int = 1000,
    level: float = 0.95,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    dtype: str = "auto",
    memory: int = 2**30,
    num_workers: int | None = None,
    cache: bool | str | os.PathLike[str] | None = True,
    progress: bool = True,
) -> Ranking:
    """Rank checkpoints by how well they suit a labelled data set, without fine-tuning any.

    Each candidate sees the images once, through its own preprocessing; its penultimate features and source
    probabilities are kept on disk, so that another metric, or a run that was interrupted, starts from
    there. A candidate that fails is a row with its reason. Under ``accelerate launch`` or torchrun the
    processes share the images and all return the same ranking.

    Args:
        dataset: An image-classification ``Dataset``, ``DatasetDict`` (its train split), ``IterableDataset``
            (read once to its end), Hub id (``org/name``, ``org/name:configuration``, each with ``@revision`` if
            wanted), or path (imagefolder, parquet, saved to disk).
        models: Candidates: timm names, Hub ids of timm or transformers checkpoints (``@revision`` pins
            one), local folders, modules, ``(module, transform)`` pairs, or a mapping of names to these.
            The embedded zoo if None.
        metric: One metric or several; the first orders the candidates. A name in ``METRICS`` or ``VARIANTS``,
            ``"all"`` of ``METRICS``, a function ``(features, labels) -> float`` with higher being better, or a
            ``Metric`` that says what else it needs.
        source: A labelled sample of the data the candidates were trained on, as ``dataset``, for the metrics that
            compare it with the target; what each candidate was published with if None.
        reference: A network (as in ``models``) whose view of the target ``"rsa"`` compares with; a small one,
            trained on the target in this call, if None.
        image_column: Column of the images; found from the features if None.
        label_column: Column of the labels; found from the features if None.
        split: Split to take; the train split if None.
        source_image_column: Column of the source's images; found if None.
        source_label_column: Column of its labels; found if None.
        source_split: Its split; the train split if None.
        max_per_class: Images drawn per class, stratified; all if None.
        seed: Seeds the draw and the bootstrap. Another seed moves the scores within their intervals.
        n_bootstrap: Resamples behind each interval and chance of being first; 0 for none.
        level: Level of the intervals.
        batch_size: Images a forward pass; 2 a thread on a CPU and 128 on a GPU if None; halved when memory runs out.
        device: Where networks run; the best there is if None.
        dtype: ``"auto"`` (bfloat16 on a GPU, float32 on a CPU), ``"float32"``, ``"bfloat16"``, ``"float16"``.
        memory: Bytes of preprocessed pixels held at a time. Beside them there are one network (two on a
            GPU), 128 encoded images, a decoded one a worker, and one candidate's features, twice
            ``4 (d + z)`` bytes an image (of every candidate, where the cache does not take them).
        num_workers: Threads that decode; one per core, at most 16, if None.
        cache: Whether features are kept in ``$HF_HOME/zoosel``, or the folder to keep them in.
        progress: Whether to show progress bars.

    Returns:
        The candidates in order, with scores, intervals and failures.

    Raises:
        ValueError: If an argument is out of range, names an unknown metric or column, or the data set is
            no single-label classification task of two classes or more with readable images, or not the
            same on every process.
        TypeError: If an argument is of a kind that cannot be used.

    Reference:
        Deshpande et al., "A linearized framework and a new benchmark for model selection for fine-tuning",
        2021, https://arxiv.org/abs/2102.00084: the default metric and 25 images per class.

    Example:
        >>> import numpy as np, timm
        >>> from datasets import Dataset
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        >>> dataset = Dataset.from_dict({"image": list(images), "label": ["cat", "dog"] * 4})
        >>> model = timm.create_model("test_resnet")
        >>> ranking = rank_models(dataset, {"mine": model}, cache=False, progress=False)
        >>> ranking.best.name
        'mine'
    """
    metrics = _metrics(metric)
    named = name_models(models)
    batch_size, num_workers = whole_number("batch_size", batch_size), whole_number("num_workers", num_workers)
    n_bootstrap, memory = whole_number("n_bootstrap", n_bootstrap, least=0), whole_number("memory", memory)
    if not 0 < level < 1:
        raise ValueError(f"`level` must be in (0, 1), got {level}. For 95 % pass 0.95.")
    team = join_team(device)
    runtime = Runtime(team.device, pick_dtype(dtype, team.device), batch_size, memory, num_workers)
    task = load_task(
        dataset,
        image_column=image_column,
        label_column=label_column,
        split=split,
        max_per_class=max_per_class,
        seed=seed,
    )
    _check_same_everywhere("dataset", task, team)
    source_task = None
    if source is not None:
        columns = {"image_column": source_image_column, "label_column": source_label_column, "split": source_split}
        with said_of(of_source()):
            source_task = load_task(source, **columns, max_per_class=max_per_class, seed=seed)
        _check_same_everywhere("source", source_task, team)
    candidates, scored = _resolve_all(named, team)
    parts = {part for one in metrics for part in one.parts}
    with open_store(cache) as store:
        running: Any = {"store": store, "runtime": runtime, "team": team, "progress": progress}
        extras = gather_extras(
            metrics, candidates, task, reference=reference, source=source_task, seed=seed, **running
        )
        drawing = {"n_bootstrap": n_bootstrap, "seed": seed}
        with closing(extract(candidates, task, parts=parts, **running)) as outcomes:
            found, unreadable = _score_each(outcomes, task, metrics, extras, team=team, **drawing)
    scored += found
    _check_classes_left(task, unreadable)
    scored = score_over_zoo(scored, metrics)
    about = (*task.notes, *(note for one in candidates for note in one.notes))
    notes = [*about, *(note for one in scored for note in one.notes)]
    settings = {
        "source": None if source_task is None else source_task.name,
        "reference": None if reference is None else str(reference)[:200],
        "max_per_class": None if max_per_class is None else int(max_per_class),
        "seed": int(seed),
        "n_bootstrap": n_bootstrap,
        "level": float(level),
        **_ran_on(runtime, team),
    }
    scored = [one.with_source(named[one.result.name]) for one in scored]
    names = [one.name for one in metrics]
    ranking = _ranking(scored, task, names, settings=settings, notes=notes, unreadable=unreadable)
    for note in ranking.notes if team.is_main else ():
        logger.warning(note)
    return team.from_main(ranking)  # the main process alone has the scores


def _ran_on(runtime: Runtime, team: Team) -> dict[str, str | int]:
    dtype = str(runtime.dtype).removeprefix("torch.")
    return {"device": team.device.type, "dtype": dtype, "processes": team.size}


def _score_each(
    outcomes: Iterable[tuple[Candidate, Features | CandidateError]],
    task: Task,
    metrics: Sequence[Metric],
    extras: Extras,
    *,
    team: Team,
    n_bootstrap: int,
    seed: int,
) -> tuple[list[Scored], dict[int, str]]:
    """Score candidates as their features come; also the images that could not be read."""
    scored: list[Scored] = []
    unreadable: dict[int, str] = {}
    options = {"n_bootstrap": n_bootstrap, "seed": seed}
    for candidate, outcome in outcomes:
        if isinstance(outcome, CandidateError):
            scored.append(Scored.failure(candidate.name, outcome, candidate.revision))
            continue
        unreadable.update(outcome.unreadable)
        if team.is_main and len(outcome.rows):
            scored.append(score(candidate, outcome, task, metrics=metrics, extras=extras, **options))
    return scored, unreadable


def _ranking(
    scored: Sequence[Scored],
    task: Task,
    metrics: Sequence[str],
    *,
    settings: Mapping[str, Any],
    notes: Sequence[str],
    unreadable: Mapping[int, str],
) -> Ranking:
    replicates = {(one.result.name, metric): values for one in scored for metric, values in one.replicates.items()}
    results = [one.result for one in scored]
    return Ranking(
        task=task.name,
        n_samples=len(task) - len(unreadable),
        n_classes=len(_classes_left(task, unreadable)),
        metrics=tuple(metrics),
        candidates=rank_candidates(results, replicates, metrics=metrics, level=settings["level"]),
        settings={
            "split": task.split,
            "image_column": task.image_column,
            "label_column": task.label_column,
            **settings,
        },
        skipped_images=tuple(SkippedImage(int(task.rows[row]), reason) for row, reason in unreadable.items()),
        notes=(*notes, *_left_out(task, unreadable)),
        versions={library: version(library) for library in _LIBRARIES},
    )


def _metrics(metric: MetricSpec | Sequence[MetricSpec]) -> list[Metric]:
    asked = list(metric) if isinstance(metric, Iterable) and not isinstance(metric, str) else [metric]
    found = [None if isinstance(one, str) and one == ALL else get_metric(one) for one in asked]
    own = {one.name for one in found if one is not None}
    rest = [one for one in METRICS.values() if one.name not in own]
    metrics = [each for one in found for each in (rest if one is None else [one])]
    names = [one.name for one in metrics]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"`metric` must name at least one metric and none twice, got {names}. A function gets a name of its own "
            "by `Metric('name', function)`."
        )
    _check_members(metrics)
    return metrics


def _check_members(metrics: Sequence[Metric]) -> None:
    """A metric of other metrics' scores needs some."""
    made_of_others = [one.name for one in metrics if "scores" in one.needs]
    members = [one for one in metrics if "scores" not in one.needs and not one.is_static]
    if made_of_others and len(members) < 2:
        raise ValueError(
            f"`metric` must name at least 2 metrics for {made_of_others[0]!r} to be made of, got "
            f"{[one.name for one in members]}. Name them beside it: [{made_of_others[0]!r}, 'lfc', 'logme', 'knn']."
        )


def _resolve_all(named: Mapping[str, Spec], team: Team) -> tuple[list[Candidate], list[Scored]]:
    """Look every model up; one that any process cannot find is a failure on all of them."""
    candidates, failures = [], []
    for name, spec in named.items():
        candidate, failure = None, None
        try:
            candidate = resolve(spec, name)
        except CandidateError as error:
            failure = str(error)
        except Exception as error:  # a configuration can be wrong in ways only its library knows
            logger.debug("%s failed", name, exc_info=True)
            failure = f"{type(error).__name__}: {error}"
        reasons = [reason for reason in team.gather(failure) if reason is not None]
        if candidate is None or reasons:
            failures.append(Scored.failure(name, reasons[0]))
        elif len(set(team.gather(candidate.revision))) > 1:
            reason = "its weights differ between the processes. Seed them alike, or load them from a file."
            failures.append(Scored.failure(name, reason))
        else:
            candidates.append(candidate)
    return candidates, failures


def _check_same_everywhere(name: str, task: Task, team: Team) -> None:
    """Processes share rows by number, so that a number must mean the same image on each."""
    if len(set(team.gather(blake2b(task.rows.tobytes() + task.labels.tobytes()).digest()))) > 1:
        raise ValueError(
            f"`{name}` must hold the same rows in the same order on every process, got different ones. "
            "Shuffle it with a seed, and do not shard it."
        )


def _classes_left(task: Task, unreadable: Mapping[int, str]) -> set[int]:
    return {label for row, label in enumerate(task.labels.tolist()) if row not in unreadable}


def _left_out(task: Task, unreadable: Mapping[int, str]) -> list[str]:
    if not unreadable:
        return []
    notes = [f"{len(unreadable)} of {len(task)} images could not be read and were left out."]
    left = _classes_left(task, unreadable)
    lost = [name for label, name in enumerate(task.class_names) if label not in left]
    return notes + ([f"No image of these classes could be read: {', '.join(lost)}."] if lost else [])


def _check_classes_left(task: Task, unreadable: Mapping[int, str]) -> None:
    left = _classes_left(task, unreadable)
    if len(left) < 2:
        some = f"only those of class {task.class_names[left.pop()]!r}" if left else "none"
        row, reason = next(iter(unreadable.items()))
        raise ValueError(
            f"`dataset` must have readable images of at least 2 classes, got {len(task)} images of which {some} could "
            f"be read (row {task.rows[row]}: {reason}). Look at column {task.image_column!r}."
        )
