"""The training loop: ``train`` reads top to bottom, the parts of a step follow."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_zoosel.features import Team
from hf_zoosel.objectives import REGULARIZERS
from hf_zoosel.training import checkpoints
from hf_zoosel.training.book import Book
from hf_zoosel.training.evaluate import evaluation_of, outputs_of
from hf_zoosel.training.feed import Feed
from hf_zoosel.training.launch import autocast_type, prepared, start_accelerator, write_on_main
from hf_zoosel.training.model import TwoHeads
from hf_zoosel.training.norms import average_statistics, freeze_statistics
from hf_zoosel.training.objective import Objective, Rows
from hf_zoosel.training.randomness import Purpose, generator
from hf_zoosel.training.recipe import Recipe


@dataclass
class Progress:
    """How far a run is; what a checkpoint keeps beside tensors.

    Attributes:
        step: Steps done.
        history: One row an epoch.
        best: The row with the best validation accuracy.
        unreadable: Images that could not be read, and why.
        scaler: State of the loss scaling of fp16.
        stopped: Whether it stopped early.
        accumulation: Forward passes a step, more than the recipe's where memory ran out.
        begun: Sums of an epoch that is not over.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None
    unreadable: dict[str, str] = field(default_factory=dict)
    scaler: dict[str, Any] | None = None
    stopped: bool = False
    accumulation: int = 1
    begun: dict[str, Any] | None = None


@dataclass
class Loop:
    """A run: what is trained, on what, and where it is kept.

    Attributes:
        model: On the device, not wrapped.
        recipe: How.
        feed: Batches to train and to validate on.
        objective: The loss.
        team: The processes that take part.
        folder: Where checkpoints go; logs go to ``logs`` two folders above.
        identity: The run they belong to.
        log_with: Trackers of Accelerate, such as ``"tensorboard"``.
        shown: Whether to draw a progress bar.
        checkpointing_steps: A checkpoint is written after so many steps, and at the end of an epoch if one is due.
        pace: When one is due.
        progress: Where it begins, unless there is a checkpoint.
    """

    model: TwoHeads
    recipe: Recipe
    feed: Feed
    objective: Objective
    team: Team
    folder: Path
    identity: str
    log_with: str | None = None
    shown: bool = True
    checkpointing_steps: int = 1000
    pace: checkpoints.Pace = field(default_factory=checkpoints.Pace)
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def start_weights(self) -> dict[str, Tensor]:
        """The backbone before training."""
        return {name: p.detach().clone() for name, p in self.model.backbone_parameters().items()}

    @property
    def best_file(self) -> Path:
        """Weights of the best epoch."""
        return self.folder / "best.safetensors"


def train(run: Loop) -> Progress:
    """Train from the last checkpoint, or from the start, to the end.

    Whatever is random at a step is a function of the seed and the step, so that a run that was killed and is
    started again ends in the same weights.

    Raises:
        DivergedError: If the loss is no longer a finite number.
        OSError: If a checkpoint cannot be written.
    """
    model, recipe, feed, team = run.model, run.recipe, run.feed, run.team
    accelerator = start_accelerator(recipe, team, run.log_with, run.folder.parents[1] / "logs" / run.folder.name)
    optimizer = make_optimizer(model, recipe)
    total = feed.steps_per_epoch * recipe.epochs
    start_weights = run.start_weights if _projections(recipe) else {}
    _resume(run, accelerator, optimizer)
    wrapped, optimizer_ = prepared(accelerator, model, optimizer, compiled=recipe.compile)
    shown = run.shown and team.is_main
    book = Book(total, run.progress.step, run.folder, team, shown=shown, begun=run.progress.begun)

    batches = feed.batches(run.progress.step, total)
    with _unwrapped_afterwards(accelerator, model), _own_randomness(team), batches, book:
        for step in range(run.progress.step, total):
            if run.progress.stopped:
                break
            _training_mode(wrapped, model, recipe)
            for group in optimizer_.param_groups:
                group["lr"] = group["base"] * recipe.rate_at(step, total)
            _seed_step(recipe.seed, step, team)

            batch = next(batches)
            run.progress.unreadable.update(batch.unreadable)
            rows = feed.on_device(batch)
            optimizer_.zero_grad()
            _backward(run, accelerator, wrapped, rows, book)
            optimizer_.step()
            _project(model, start_weights, recipe)

            run.progress.step = step + 1
            book.step_done(len(rows.pixels) * team.size)
            if run.progress.step % feed.steps_per_epoch == 0:
                _end_epoch(run, accelerator, book, batches.waited)
                _checkpoint(run, accelerator, optimizer, total=total)
            elif run.progress.step % run.checkpointing_steps == 0:
                _settle(run, book)
                run.progress.begun = book.so_far(batches.waited)
                _checkpoint(run, accelerator, optimizer, total=total)
    if recipe.patience is not None:
        checkpoints.load_weights(run.best_file, run.identity, model)
    return run.progress


def _resume(run: Loop, accelerator: Any, optimizer: torch.optim.Optimizer) -> None:
    """Go back to the last checkpoint, if there is one."""
    found = checkpoints.newest(run.folder, run.identity)
    if found is None:
        return
    found.restore(run.model, optimizer)
    least = run.progress.accumulation
    run.progress = Progress(**found.progress)
    run.progress.accumulation = max(least, run.progress.accumulation)
    if run.progress.scaler is not None and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(run.progress.scaler)


def _checkpoint(run: Loop, accelerator: Any, optimizer: torch.optim.Optimizer, *, total: int) -> None:
    """Keep what is there after a step; between those that are asked for and the last one, if one is due."""
    if accelerator.scaler is not None:
        run.progress.scaler = accelerator.scaler.state_dict()
    step = run.progress.step
    wanted = step % run.checkpointing_steps == 0 or step == total or run.progress.stopped or _is_new_best(run)

    def write() -> None:
        if wanted or run.pace.is_due:
            with run.pace.writing():
                checkpoints.write(run.folder, run.identity, asdict(run.progress), run.model, optimizer)

    write_on_main(run.team, write)


def _is_new_best(run: Loop) -> bool:
    """Whether the weights of the best epoch have just been written: a checkpoint never speaks of other ones."""
    history = run.progress.history
    return run.recipe.patience is not None and bool(history) and run.progress.best == history[-1]


def make_optimizer(model: TwoHeads, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum; new heads learn ``head_rate`` times as fast as the rest."""
    groups = []
    for part, rate in (
        (model.backbone_parameters(), recipe.learning_rate),
        (model.head_parameters(), recipe.learning_rate * recipe.head_rate),
    ):
        trained = [p for p in part.values() if p.requires_grad]
        if trained:
            groups.append({"params": trained, "lr": rate, "base": rate})
    return torch.optim.SGD(
        groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.momentum > 0
    )


def _training_mode(wrapped: nn.Module, model: TwoHeads, recipe: Recipe) -> None:
    if not (wrapped.training and model.training) or recipe.batch_norm == "frozen":
        wrapped.train()
        model.train()
    if recipe.batch_norm == "frozen":
        freeze_statistics(model)


def _seed_step(seed: int, step: int, team: Team) -> None:
    """Seed dropout and its like for one step, on the CPU and on the team's device alone."""
    number = int(generator(seed, Purpose.STEP, step).integers(2**62)) + team.rank
    torch.default_generator.manual_seed(number)
    if team.device.type == "cuda":
        with torch.cuda.device(team.device):
            torch.cuda.manual_seed(number)
    elif team.device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def _unwrapped_afterwards(accelerator: Any, model: nn.Module) -> Iterator[None]:
    """Whatever happens, close the trackers and take off the model what Accelerate and the training left on it."""
    try:
        yield
    finally:
        for tracker in accelerator.trackers:  # end_training() would end the processes' group too
            tracker.finish()
        for name in ("forward", "_original_forward"):  # unwrap_model() would leave a model of torch.compile broken
            model.__dict__.pop(name, None)
        model.zero_grad(set_to_none=True)


def _own_randomness(team: Team) -> AbstractContextManager[None]:
    """Whatever the steps draw, the caller's random state is as it was afterwards."""
    return torch.random.fork_rng(devices=[team.device.index] if team.device.type == "cuda" else [])


def _backward(run: Loop, accelerator: Any, wrapped: nn.Module, rows: Rows, book: Book) -> None:
    """Gradients of a step, clipped; processes average theirs once, with the last piece."""
    weight = run.recipe.source_weight_at(run.progress.step, book.total)
    pieces = _pieces(rows, run.progress.accumulation)
    for i, (share, source_share, piece) in enumerate(pieces):
        with nullcontext() if i + 1 == len(pieces) else accelerator.no_sync(wrapped):
            with accelerator.autocast():
                terms = run.objective(wrapped, run.model, piece, weight * source_share / share)
            loss = torch.stack([term.float() for term in terms.values()]).sum()
            accelerator.backward(loss * share)
        book.add(run.progress.step, {"loss": loss, **terms}, share)
    if run.recipe.max_grad_norm is not None:
        accelerator.clip_grad_norm_(wrapped.parameters(), run.recipe.max_grad_norm)


def _pieces(rows: Rows, n: int) -> list[tuple[float, float, Rows]]:
    """A batch in ``n`` pieces, and the shares of the target's and of the source's rows each has.

    The last has rows of both streams: with it processes average their gradients, and wait for those of every head.
    """
    at, n_source = rows.n_target, len(rows.pixels) - rows.n_target
    n = min(n, at)
    if n == 1:
        return [(1.0, 1.0, rows)]
    streams = [rows.pixels[:at], rows.pixels[at:], rows.labels[:at], rows.labels[at:]]
    streams.append(rows.pixels[:0] if rows.strong is None else rows.strong)
    made = []
    for target, source, labels, source_labels, strong in zip(
        *(torch.tensor_split(s, n) for s in streams), strict=True
    ):
        pixels, all_labels = torch.cat([target, source]), torch.cat([labels, source_labels])
        view = None if rows.strong is None else strong
        piece = Rows(pixels, all_labels, len(target), view)
        made.append((len(target) / at, len(source) / max(1, n_source), piece))
    return made[::-1]  # the larger ones come first


def _projections(recipe: Recipe) -> dict[str, float]:
    return {name: radius for name, radius in recipe.regularizers.items() if REGULARIZERS[name].kind == "projection"}


def _project(model: TwoHeads, start: dict[str, Tensor], recipe: Recipe) -> None:
    """What regularizers do to the weights after a step."""
    for name, radius in _projections(recipe).items():
        REGULARIZERS[name].fn(model.backbone_parameters(), start, radius=radius)


def _settle(run: Loop, book: Book) -> None:
    """Bring together what the processes have; nothing that is not finite is ever written."""
    for others in run.team.gather(run.progress.unreadable):
        run.progress.unreadable = others | run.progress.unreadable
    average_statistics(run.model, run.team)
    book.check(run.progress.step - 1, run.model)


def _end_epoch(run: Loop, accelerator: Any, book: Book, waited: float) -> None:
    """Write the epoch's row, keep the best weights, and decide whether to stop."""
    _settle(run, book)
    run.progress.begun = None
    epoch = run.progress.step // run.feed.steps_per_epoch
    row = {"epoch": float(epoch), **run.team.from_main(book.epoch_done(waited))}
    if run.feed.has_validation:
        outputs = outputs_of(
            run.model,
            run.feed.validation_batches,
            run.feed.preprocess,
            team=run.team,
            autocast=autocast_type(accelerator.mixed_precision),
        )
        seen = evaluation_of(outputs)
        row |= {
            "validation_accuracy": seen.accuracy,
            "validation_balanced_accuracy": seen.balanced_accuracy,
            "validation_loss": seen.loss,
        }
        if run.progress.best is None or seen.accuracy > run.progress.best["validation_accuracy"]:
            run.progress.best = row
            if run.recipe.patience is not None:
                write_on_main(run.team, lambda: checkpoints.write_weights(run.best_file, run.identity, run.model))
        patience = run.recipe.patience
        run.progress.stopped = patience is not None and epoch - run.progress.best["epoch"] >= patience
    run.progress.history.append(row)
    accelerator.log(row, step=run.progress.step)
