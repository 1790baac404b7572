"""A model over rows in order, without augmentation: what it says of each, and how often it is right."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.features import Team
from hf_zoosel.features.memory import is_out_of_memory, release_memory
from hf_zoosel.training.book import DivergedError
from hf_zoosel.training.model import TwoHeads
from hf_zoosel.zoo import Preprocess


class UnreadableError(ValueError):
    """None of the images can be read."""


@dataclass(frozen=True)
class Outputs:
    """What a model says of the rows that could be read, in their order.

    Attributes:
        rows: Their numbers ``(n,)``.
        labels: Their classes ``(n,)``.
        target: Logits of the target head ``(n, n_target_classes)`` float32, on the CPU.
        kept: Logits of the checkpoint's own head ``(n, n_source_classes)``, where it was kept.
        features: Input of the heads ``(n, n_features)``.
        unreadable: Rows that could not be read, and why.
    """

    rows: Tensor
    labels: Tensor
    target: Tensor
    kept: Tensor | None
    features: Tensor
    unreadable: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """How good the target head is on some rows.

    Attributes:
        accuracy: Share of rows that are right.
        balanced_accuracy: Mean over the classes that occur of the share that is right.
        loss: Mean cross-entropy, in nats.
        n: Rows.
        n_unreadable: Rows that could not be read, not counted.
        right: Which rows are right, bool ``(n,)``, in the order of the rows.
    """

    accuracy: float
    balanced_accuracy: float
    loss: float
    n: int
    n_unreadable: int = 0
    right: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=bool), repr=False, compare=False)


def outputs_of(
    model: TwoHeads, batches: Iterable[Any], preprocess: Preprocess, *, team: Team, autocast: torch.dtype | None = None
) -> Outputs:
    """Run a model over this process's share of rows, and give every process all of it.

    Args:
        model: Not wrapped; its mode is put back afterwards.
        batches: ``EvaluationBatches`` of this process.
        preprocess: Whose second stage is applied on the device.
        team: The processes that share the rows.
        autocast: Compute type, float32 if None.
    """
    seen: list[tuple[Tensor, ...]] = []
    unreadable: dict[int, str] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad():  # not inference_mode: what a network keeps of it could not be trained through
        for batch in batches:
            unreadable.update(batch.unreadable)
            if len(batch.rows) == 0:
                continue
            said = _said(model, preprocess.batch(team.moved(batch.pixels)), autocast)
            seen.append((torch.as_tensor(batch.rows), batch.labels.cpu(), *said))
    model.train(was_training)
    return _gathered(seen, unreadable, model, team)


def _said(model: TwoHeads, pixels: Tensor, autocast: torch.dtype | None) -> list[Tensor]:
    """Logits of both heads and features, float32 on the CPU; in two halves if memory runs out."""
    try:
        with nullcontext() if autocast is None else torch.autocast(pixels.device.type, autocast):
            output = model(pixels)
        kept = output.target[:, :0] if output.kept is None else output.kept
        return [t.float().cpu() for t in (output.target, kept, output.features)]
    except RuntimeError as error:
        if len(pixels) == 1 or not is_out_of_memory(error):
            raise
    release_memory(pixels.device)  # not in the handler, where the traceback still holds the activations
    halves = [_said(model, half, autocast) for half in pixels.tensor_split(2)]
    return [torch.cat(pair) for pair in zip(*halves, strict=True)]


def _gathered(seen: list[tuple[Tensor, ...]], unreadable: dict[int, str], model: TwoHeads, team: Team) -> Outputs:
    own = [torch.cat(column) for column in zip(*seen, strict=True)] if seen else [torch.empty(0)] * 5
    if not seen:
        own[0] = own[1] = torch.empty(0, dtype=torch.int64)
    rows, labels, target, kept, features = (team.gather_rows(column) for column in own)
    lost = {row: why for part in team.gather(unreadable) for row, why in part.items()}
    order = rows.argsort()
    has_kept = model.has_kept_head
    return Outputs(rows[order], labels[order], target[order], kept[order] if has_kept else None, features[order], lost)


def evaluation_of(outputs: Outputs) -> Evaluation:
    """Count what is right.

    Raises:
        UnreadableError: If no row could be read.
        DivergedError: If what the model says is no longer finite.
    """
    from sklearn.metrics import accuracy_score, recall_score

    if len(outputs.labels) == 0:
        why = next(iter(outputs.unreadable.values()), "there are no rows")
        raise UnreadableError(f"`dataset` must hold images that can be read, got none: {why}.")
    labels, said = outputs.labels.numpy(), outputs.target.argmax(dim=1).numpy()
    present = np.unique(labels)
    loss = torch.nn.functional.cross_entropy(outputs.target.double(), outputs.labels)
    if not loss.isfinite():
        raise DivergedError(
            f"`learning_rate` must keep the loss finite, got {loss.item()} on {len(labels)} rows held out. Lower the "
            "rate, or set `max_grad_norm`."
        )
    return Evaluation(
        accuracy=float(accuracy_score(labels, said)),
        balanced_accuracy=float(recall_score(labels, said, labels=present, average="macro", zero_division=0.0)),
        loss=float(loss),
        n=len(labels),
        n_unreadable=len(outputs.unreadable),
        right=said == labels,
    )
