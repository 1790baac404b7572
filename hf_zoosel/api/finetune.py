"""finetune: train a checkpoint on the target, and on the part of the pre-training data chosen for it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from hf_zoosel.api.arguments import one_candidate, whole_number
from hf_zoosel.features import Team
from hf_zoosel.features.store import default_cache_dir
from hf_zoosel.objectives import get_regularizer
from hf_zoosel.ranking.record import CandidateResult
from hf_zoosel.selection import SourceSelection
from hf_zoosel.tasks.opening import DatasetLike, hub_id
from hf_zoosel.training.folder import call_identity, claim, released_unless_trained
from hf_zoosel.training.launch import chosen_precision, training_team
from hf_zoosel.training.materials import Columns, Materials, fitting_method, open_source_rows
from hf_zoosel.training.overlap import without_held_out
from hf_zoosel.training.publish import publish
from hf_zoosel.training.recipe import Method, Recipe
from hf_zoosel.training.result import FinetuneResult
from hf_zoosel.training.run import Options
from hf_zoosel.training.target import TEST, open_target_rows
from hf_zoosel.training.trials import choose_and_train
from hf_zoosel.zoo import Spec
from hf_zoosel.zoo.image_size import with_image_size


def finetune(
    model: Spec | CandidateResult,
    dataset: Any,
    *,
    source: SourceSelection | Any | None = None,
    method: Method | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | Iterable[float] | None = None,
    source_weight: float | Literal["auto"] | None = None,
    regularizers: Mapping[str, float] | Sequence[str] | None = None,
    image_size: int | None = None,
    seed: int | None = None,
    recipe: Recipe | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    validation: float | DatasetLike | None = 0.2,
    test: DatasetLike | None = TEST,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    max_per_class: int | None = None,
    source_data: Any | None = None,
    source_image_column: str | None = None,
    source_label_column: str | None = None,
    source_split: str | None = None,
    keep_source_head: bool = False,
    checkpointing_steps: int = 1000,
    device: str | torch.device | None = None,
    num_workers: int | None = None,
    log_with: str | None = None,
    progress: bool = True,
) -> FinetuneResult:
    """Fine-tune a checkpoint on a labelled data set, alone or with data it was pre-trained on.

    The call can be killed at any moment; the same call goes on from the last checkpoint and ends in the same
    weights (bit for bit on one CPU process; a GPU may round in another order). Under ``accelerate launch`` or torchrun
    the processes share each batch. A call that had finished returns its result.

    Args:
        model: The checkpoint: a name, id, folder, module or ``(module, transform)``, or ``ranking.best``.
        dataset: The target, as ``rank_models`` takes it.
        source: What to train with beside it: a ``SourceSelection``, or any data set, labelled or not.
        method: ``"plain"``, ``"joint"``, ``"co-tuning"`` (joint as well where there is a source) or ``"consistency"``;
            plain without a source, joint with one, consistency with one without labels, if None.
        epochs: Passes over the target.
        batch_size: Target rows a step, over all processes.
        learning_rate: Of the backbone. Of several the one with the best validation accuracy is taken, each tried in
            full; the test split is never looked at for that.
        source_weight: Weight of the source's loss; ``"auto"`` for a short race on the validation rows between plain
            training and mixed training at several weights, which plain training wins unless beaten by more than a
            standard error.
        regularizers: Names in ``hf_zoosel.objectives.REGULARIZERS``: mapped to strengths, or a list of ``"name"`` (at
            its default strength) and ``"name=strength"``.
        image_size: Side of the images in pixels; the checkpoint's own if None.
        seed: Of everything random.
        recipe: Every other choice; the arguments above go before its fields.
        output_dir: Where the model, its card and results go, and checkpoints meanwhile. A folder in the cache named
            after the run if None. Several machines must share it.
        validation: Share of each class of the training rows to hold out, the name of a split, or a data set; None for
            none. Images of the source that are held out too are left out of training.
        test: Split, or data set, to measure the finished model on, once; not used if it has no labels or is trained
            on, nor the default where the data set has no rows in a split of that name. Of a data set of several splits
            the one named test.
        image_column: Column of the target's images; found from the features if None.
        label_column: Column of its labels; found if None.
        split: Its split to train on; the train split if None.
        max_per_class: Images of each class to take, those held out among them; all if None.
        source_data: The data a selection was made from, where it does not hold them (one read from a file).
        source_image_column: Column of the source's images.
        source_label_column: Column of its labels.
        source_split: Its split.
        keep_source_head: Whether to write the source heads, the checkpoint's own or a new one, to
            ``source_head.safetensors`` beside the model.
        checkpointing_steps: A checkpoint is written after so many steps, and at the end of an epoch unless that would
            take more than a tenth of the time.
        device: Where to train; what Accelerate chooses if None, and always where there are several processes.
        num_workers: Processes that load images.
        log_with: Trackers of Accelerate, such as ``"tensorboard"``.
        progress: Whether to show progress bars.

    Returns:
        The result: ``.metrics``, ``.history``, ``.plot()``, ``.folder`` and ``.push_to_hub("me/my-model")``.

    Raises:
        TypeError: If ``model``, ``recipe`` or a regularizer is of no kind that is taken.
        ValueError: If an argument is out of range, the target has one class, held-out rows have other classes, the
            source's data are not those the selection was made from, or the folder holds another run or is not shared.
        hf_zoosel.training.DivergedError: If the loss is no longer finite; the last good checkpoint is kept.
        hf_zoosel.training.LoadingError: If no image can be read, or a worker that loads them dies.
        hf_zoosel.zoo.CandidateError: If the model cannot be used.
        OSError: If something cannot be written; the same call goes on from the last checkpoint.

    Reference:
        Liu et al., "Improved Fine-Tuning by Better Leveraging Pre-Training Data", NeurIPS 2022,
        https://arxiv.org/abs/2111.12292: cross-entropy on target and selected source rows, through one forward pass.
        You et al., "Co-Tuning for Transfer Learning", NeurIPS 2020: the source head is kept and trained too.

    Example:
        >>> import numpy as np, tempfile, timm
        >>> from datasets import Dataset
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        >>> images[::2] //= 4
        >>> dataset = Dataset.from_dict({"image": list(images), "label": ["dark", "light"] * 4})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = {"epochs": 1, "image_size": 32, "progress": False}
        ...     result = finetune(timm.create_model("test_resnet"), dataset, output_dir=folder, **options)
        >>> result.class_names, len(result.history)
        (('dark', 'light'), 1)
    """
    team = training_team(device)
    validation = validation.item() if isinstance(validation, np.generic) else validation
    workers = whole_number("num_workers", num_workers, least=0)
    every = whole_number("checkpointing_steps", checkpointing_steps)
    given = {
        "method": method,
        "epochs": epochs,
        "batch_size": batch_size,
        "image_size": image_size,
        "seed": seed,
        "regularizers": _strengths(regularizers),
        "source_weight": None if source_weight == "auto" else source_weight,
    }
    chosen, rates = _completed(recipe, given, learning_rate, team)
    columns = Columns(image_column, label_column, split)
    train, held_out, tested = open_target_rows(
        dataset,
        columns,
        validation=validation,
        test=test,
        max_per_class=whole_number("max_per_class", max_per_class),
        seed=chosen.seed,
    )
    of_source = Columns(source_image_column, source_label_column, source_split)
    if source is None:
        _check_none(source_data=source_data, source_weight=source_weight, **of_source.as_arguments("source_"))
    rows, selection = open_source_rows(source, of_source, chosen, data=source_data)
    guess = method is None and chosen.method == "plain"
    recipe = fitting_method(chosen, rows, guess=guess)
    candidate = with_image_size(one_candidate(model), recipe.image_size)
    told = {
        "validation": validation,
        "test": test,
        **columns.as_arguments(),
        "max_per_class": max_per_class,
        **of_source.as_arguments("source_"),
    }
    materials = Materials(
        candidate,
        recipe,
        train,
        held_out,
        tested,
        rows,
        selection,
        dataset_id=hub_id(dataset),
        test_is_apart=not isinstance(test, str),
        chosen_by=_chosen_by(model),
        arguments={name: value for name, value in told.items() if _is_told(name, value)},
    )
    auto = source_weight == "auto"
    identity = call_identity(materials, rates, auto=auto, keep_source_head=keep_source_head)
    folder = default_cache_dir() / "finetuned" / identity if output_dir is None else Path(output_dir).expanduser()
    options = Options(team, folder, workers, log_with, progress, keep_source_head, every)
    choices = {name: value for name, value in told.items() if _is_plain(value)}
    choices |= {"learning_rate": list(rates), "race": auto}
    if claim(options, materials, identity, choices):
        return FinetuneResult.load(options.folder)
    with released_unless_trained(options):
        if rows is not None:
            materials = replace(materials, source=without_held_out(rows, [held_out, tested]))
        ran, trials = choose_and_train(materials, rates, auto=auto, options=options)
        return publish(ran, trials, options=options)


def _completed(
    recipe: Recipe | None, given: Mapping[str, Any], learning_rate: float | Iterable[float] | None, team: Team
) -> tuple[Recipe, tuple[float, ...]]:
    """The recipe with what was given beside it, at the first of the rates to try; and these."""
    if not isinstance(recipe, Recipe | None):
        raise TypeError(f"`recipe` must be a Recipe, got {type(recipe).__name__}. Pass `Recipe(refit=True, ...)`.")
    own = recipe or Recipe()
    rates = _rates(learning_rate, own)
    changed = own.changed(**{name: value for name, value in given.items() if value is not None})
    chosen, *_ = [changed.changed(learning_rate=rate) for rate in rates]  # all are looked at before one is trained by
    return chosen.changed(mixed_precision=chosen_precision(chosen, team.device)), rates


def _check_none(**arguments: Any) -> None:
    """Refuse what is of a source where there is none."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"`source` must be given beside `{name}`, got None. Name it, or leave the other out.")


def _chosen_by(model: Any) -> dict[str, Any]:
    """What a ranking says of the checkpoint that was taken from it."""
    if not isinstance(model, CandidateResult) or model.rank is None:
        return {}
    return {"place": model.rank, "scores": {name: score.value for name, score in model.scores.items()}}


def _is_told(name: str, value: Any) -> bool:
    """Whether an argument has another value than it has by itself, and one that can be written down."""
    return _is_plain(value) and value != {"validation": 0.2, "test": TEST}.get(name)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _rates(learning_rate: float | Iterable[float] | None, recipe: Recipe) -> tuple[float, ...]:
    if learning_rate is None:
        return (recipe.learning_rate,)
    one: Any = learning_rate
    several = isinstance(one, Iterable) and not isinstance(one, str) and getattr(one, "ndim", 1) > 0
    given: Any = one if several else [one]
    rates = tuple(rate.item() if hasattr(rate, "item") else rate for rate in given)
    if not rates or len(set(rates)) < len(rates):
        raise ValueError(f"`learning_rate` must be one rate or several different ones, got {learning_rate!r}.")
    return rates


def _strengths(regularizers: Mapping[str, float] | Sequence[str] | None) -> dict[str, float] | None:
    """Names with strengths, or names at their default strengths."""
    if regularizers is None or isinstance(regularizers, Mapping):
        return None if regularizers is None else dict(regularizers)
    strengths = {}
    for text in [regularizers] if isinstance(regularizers, str) else regularizers:
        if not isinstance(text, str):
            raise TypeError(f"`regularizers` must be names or name=strength, got {text!r}. Or pass a dict of both.")
        name, equals, strength = text.partition("=")
        try:
            strengths[name] = float(strength) if equals else get_regularizer(name).strength
        except ValueError as error:
            if not equals:
                raise
            raise ValueError(f"`regularizers` must be names or name=strength, got {text!r}.") from error
    return strengths
