"""One recipe, trained from beginning to end in a folder of its own; what is finished is not done again."""

import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hf_zoosel.features import Team
from hf_zoosel.features.allocator import freed_memory_kept
from hf_zoosel.features.memory import is_out_of_memory, release_memory
from hf_zoosel.objectives import REGULARIZERS, Relationship, category_relationship
from hf_zoosel.ranking.json_file import load as load_json, save as save_json
from hf_zoosel.training import checkpoints
from hf_zoosel.training.augment import make_views
from hf_zoosel.training.build import Built, build
from hf_zoosel.training.evaluate import Evaluation, Outputs, evaluation_of, outputs_of
from hf_zoosel.training.feed import Feed
from hf_zoosel.training.launch import autocast_type, write_on_main
from hf_zoosel.training.loop import Loop, Progress, train
from hf_zoosel.training.materials import Materials
from hf_zoosel.training.model import TwoHeads
from hf_zoosel.training.norms import rows_for_statistics
from hf_zoosel.training.objective import Objective
from hf_zoosel.training.recipe import Recipe
from hf_zoosel.training.refit import refit_head
from hf_zoosel.zoo.network import moved_to

_TO_CALIBRATE = 10  # held-out images a class


@dataclass(frozen=True)
class Options:
    """Where and how a call runs; none of it changes the weights.

    Attributes:
        team: The processes that take part.
        folder: Where everything is kept.
        num_workers: Processes that load images.
        log_with: Trackers of Accelerate.
        shown: Whether to draw progress bars.
        keep_source_head: Whether the source head is to be written beside the model.
        checkpointing_steps: A checkpoint is written after so many steps, and at the end of an epoch if one is due.
    """

    team: Team
    folder: Path
    num_workers: int | None = None
    log_with: str | None = None
    shown: bool = True
    keep_source_head: bool = False
    checkpointing_steps: int = 1000


@dataclass(frozen=True)
class Ran:
    """A run that came to its end.

    Attributes:
        model: On the device, in evaluation mode.
        feed: What it read.
        materials: What it was made from.
        validation: How good it is on the rows held out; None where there are none.
        progress: History, best epoch, unreadable images.
        relationship: p(source | target), for Co-Tuning.
        notes: What a person should know.
    """

    model: TwoHeads
    feed: Feed
    materials: Materials
    validation: Evaluation | None
    progress: Progress
    relationship: Relationship | None = None
    notes: tuple[str, ...] = field(default=())


@torch.inference_mode(False)
@torch.enable_grad()
def run(materials: Materials, options: Options) -> Ran:
    """Train by one recipe.

    Raises:
        DivergedError: If the loss is no longer finite.
        ValueError: If the recipe does not fit the checkpoint or the data.
    """
    recipe, team = materials.recipe, options.team
    folder = options.folder / "runs" / materials.identity
    model, feed, built = prepare(materials, team, options.num_workers)
    if options.keep_source_head and not model.source_head_tensors():
        raise ValueError(
            f"`keep_source_head` must be False for method={recipe.method!r} without a source head, got True. Leave it "
            "out."
        )
    notes = built.notes
    relationship = None
    if recipe.method == "co-tuning":
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            relationship = relationship_of(model, feed, materials)
        how = f"p(source class | target class) was learned by the {relationship.method} way"
        if relationship.method == "direct" and feed.validation is not None:
            how = f"{how}, of held-out rows too, which makes the validation figures a little too good"
        notes = (*notes, how, *(str(one.message) for one in said))
    finished = folder / "finished.json"
    if team.from_main(finished.is_file()):
        progress = load_json(finished, lambda data: Progress(**data), "a finished run")
        checkpoints.load_weights(folder / "weights.safetensors", materials.identity, model)
    else:
        progress = _train(model, feed, relationship, options, folder=folder, identity=materials.identity)
        if recipe.refit:
            _refit(model, feed)
        write_on_main(team, lambda: _keep(folder, materials.identity, model, progress))
    model.eval()
    validation = evaluate(model, feed, materials.validation)
    return Ran(model, feed, materials, validation, progress, relationship, notes)


def _keep(folder: Path, identity: str, model: TwoHeads, progress: Progress) -> None:
    checkpoints.write_weights(folder / "weights.safetensors", identity, model)
    save_json(asdict(progress), folder / "finished.json")
    checkpoints.remove(folder)


def evaluate(model: TwoHeads, feed: Feed, rows: Any) -> Evaluation | None:
    """How good a model is on some rows; None for none."""
    return None if rows is None else evaluation_of(_outputs(model, feed, rows))


def _outputs(model: TwoHeads, feed: Feed, rows: Any) -> Outputs:
    autocast = autocast_type(feed.recipe.mixed_precision)
    return outputs_of(model, feed.in_order(rows), feed.preprocess, team=feed.team, autocast=autocast)


@torch.inference_mode(False)
@torch.enable_grad()
def prepare(materials: Materials, team: Team, num_workers: int | None) -> tuple[TwoHeads, Feed, Built]:
    """The model with its heads, on the device, and what it will read."""
    recipe = materials.recipe
    preprocess = materials.candidate.preprocess
    views = make_views(preprocess, recipe.augmentation)
    feed = Feed(materials.train, materials.validation, materials.source, views, preprocess, recipe, team, num_workers)
    built = build(materials.candidate, recipe, len(materials.train.class_names), materials.source, _sample(feed))
    moved_to(built.model, team.device, channels_last=built.model.channels_last)
    return built.model, replace(feed, source=built.source), built


def relationship_of(model: TwoHeads, feed: Feed, materials: Materials) -> Relationship:
    """What the checkpoint's own head says of the target's classes, before training.

    Raises:
        ValueError: If the reverse way is asked for and no rows are held out.
    """

    def probs(rows: Any) -> tuple[Tensor, Tensor]:
        outputs = _outputs(model, feed, rows)
        assert outputs.kept is not None
        return (outputs.kept.double() / feed.recipe.temperature).softmax(dim=1), outputs.labels

    train_probs, labels = probs(feed.train)
    names = materials.candidate.class_names
    method = _way(feed, len(materials.train.class_names))
    validation: dict[str, Any] = {}
    if feed.validation is not None:
        validation["validation_probs"], validation["validation_labels"] = probs(feed.validation)
    elif method == "reverse":
        raise ValueError(
            "`validation` must be given to learn relationship='reverse', got None. Hold rows out, or take 'direct'."
        )
    return category_relationship(
        train_probs, labels, method=method, target_names=materials.train.class_names, source_names=names, **validation
    )


def _way(feed: Feed, n_classes: int) -> Literal["reverse", "direct"]:
    """How the relationship is learned: calibrated on a few images, the reverse way says next to nothing."""
    if feed.recipe.relationship != "auto":
        return feed.recipe.relationship
    held_out = 0 if feed.validation is None else len(feed.validation)
    return "reverse" if held_out >= _TO_CALIBRATE * n_classes else "direct"


def _sample(feed: Feed) -> Tensor:
    """Two grey images as the network takes them: which images they are does not matter, only their size."""
    from PIL import Image

    pixels = torch.from_numpy(feed.views.evaluation(Image.new("RGB", (64, 64), (127, 127, 127))).copy())
    return feed.preprocess.batch(torch.stack([pixels, pixels]))


def _train(
    model: TwoHeads, feed: Feed, relationship: Relationship | None, options: Options, *, folder: Path, identity: str
) -> Progress:
    """Train, in more and smaller passes a step if memory runs out."""
    recipe, n_passes = feed.recipe, feed.recipe.accumulation
    start = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    _check_needs(recipe, feed)
    while True:
        objective = _objective(model, feed, relationship, shown=options.shown and feed.team.is_main)
        _layers(model, recipe)
        loop = Loop(
            model,
            recipe,
            feed,
            objective,
            options.team,
            folder,
            identity,
            log_with=options.log_with,
            shown=options.shown,
            checkpointing_steps=options.checkpointing_steps,
        )
        loop.progress.accumulation = n_passes
        try:
            with freed_memory_kept(), rows_for_statistics():
                progress = train(loop)
        except RuntimeError as error:
            n_passes = loop.progress.accumulation * 2
            fits = not is_out_of_memory(error)
            if fits or options.team.size > 1 or n_passes > feed.target_plan.batch_size // 2:
                raise
        else:
            _layers(model, recipe, back=True)
            return progress
        _layers(model, recipe, back=True)  # not in the handler, where the traceback still holds the activations
        model.load_state_dict(start)
        model.zero_grad(set_to_none=True)
        release_memory(feed.team.device)


def _check_needs(recipe: Recipe, feed: Feed) -> None:
    if recipe.patience is not None and not feed.has_validation:
        raise ValueError("`validation` must be given for `patience`, got None. Hold rows out, or leave patience out.")
    if len(feed.train) < 2 * feed.team.size:
        raise ValueError(
            f"`dataset` must have two rows for each of {feed.team.size} processes to train on, got {len(feed.train)}."
        )


def _objective(model: TwoHeads, feed: Feed, relationship: Relationship | None, *, shown: bool) -> Objective:
    from copy import deepcopy

    from hf_zoosel.training.attention import channel_weights_of

    names = feed.recipe.regularizers
    needs = {need for name in names for need in REGULARIZERS[name].needs}
    start = deepcopy(model) if needs.intersection({"start", "start_maps", "start_logits"}) else None
    matrix = None if relationship is None else relationship.matrix.to(feed.team.device, torch.float32)
    weights = channel_weights_of(model, feed, shown=shown) if "channel_weights" in needs else None
    return Objective(feed.recipe, start, matrix, weights)


def _layers(model: TwoHeads, recipe: Recipe, *, back: bool = False) -> None:
    """Put a regularizer's layers into the model, or the plain ones back."""
    for name, strength in recipe.regularizers.items():
        entry = REGULARIZERS[name]
        if entry.kind == "layers":
            if back:
                assert entry.inverse is not None
                entry.inverse(model)
            else:
                entry.fn(model, strength)


def _refit(model: TwoHeads, feed: Feed) -> None:
    train = _outputs(model, feed, feed.train)
    validation = None if feed.validation is None else _outputs(model, feed, feed.validation)
    head = refit_head(train, validation, train.target.shape[1], has_bias=model.has_bias)
    model.set_target_head(head.weight, head.bias)
