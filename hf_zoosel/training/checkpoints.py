"""Checkpoints of a run: one file each, written whole or not at all, the last two kept.

A checkpoint is one safetensors file: weights, running statistics and the optimizer's tensors by name. Step, history
and the run it belongs to are its metadata. Nothing in it is code. Whatever is random in training is a function of
the seed and the step, so that no state of a generator has to be kept.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_zoosel.zoo.atomic import replacing

_KEPT = 2
_PAUSE = 10  # times as long as writing took
_MODEL, _OPTIMIZER = "model.", "optimizer."


@dataclass(frozen=True)
class Checkpoint:
    """What a run was when it was written: ``progress`` is its step, history and best epoch, as plain values."""

    path: Path
    progress: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put weights, buffers and the optimizer's state back."""
        state = {name.removeprefix(_MODEL): t for name, t in self.tensors.items() if name.startswith(_MODEL)}
        model.load_state_dict(state, strict=True)
        names = _names(model, optimizer)
        for name, tensor in self.tensors.items():
            if name.startswith(_OPTIMIZER):
                entry, _, parameter = name.removeprefix(_OPTIMIZER).partition(".")
                owner = names[parameter]
                if tensor.shape == owner.shape:  # in memory as a step would have left it
                    tensor = torch.empty_like(owner.detach()).copy_(tensor)
                optimizer.state[owner][entry] = tensor


class Pace:
    """When the next checkpoint is due: so rarely that a run spends a tenth of its time on them at most.

    Example:
        >>> pace = Pace()
        >>> pace.is_due
        True
    """

    def __init__(self) -> None:
        self._next = -math.inf

    @property
    def is_due(self) -> bool:
        """Whether ten times as long as the last one took to write has passed since."""
        return time.monotonic() >= self._next

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure how long it takes to write one."""
        started = time.monotonic()
        yield
        ended = time.monotonic()
        self._next = ended + _PAUSE * (ended - started)


def write(
    folder: Path, identity: str, progress: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> Path:
    """Write a checkpoint and remove all but the last two.

    Args:
        folder: Where checkpoints lie; made if need be.
        identity: The run it belongs to.
        progress: JSON-able; ``progress["step"]`` steps are done.
        model: Not wrapped.
        optimizer: Its state must be tensors.

    Raises:
        OSError: If the disk is full, say; the last good checkpoint stays, and the message names it.
    """
    from safetensors.torch import save_file

    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for parameter, owner in _names(model, optimizer).items():
        for entry, value in optimizer.state.get(owner, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{entry}.{parameter}"] = value
    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}  # tied ones apart
    path = folder / f"step-{int(progress['step']):08d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(copies, temporary, {"run": identity, "progress": json.dumps(dict(progress))})
    except Exception as error:  # OSError, and what safetensors makes of one
        last = next(iter(_newest_first(folder)), None)
        good = "There is none yet" if last is None else f"The last good one is {last}"
        raise OSError(f"the checkpoint {path} cannot be written ({error}). {good}; run again to go on.") from error
    for old in _newest_first(folder)[_KEPT:]:
        old.unlink(missing_ok=True)
    return path


def newest(folder: Path, identity: str) -> Checkpoint | None:
    """The last checkpoint of a run that can be read; None if there is none.

    Raises:
        ValueError: If the folder holds checkpoints of another run.
    """
    from safetensors import SafetensorError, safe_open

    for path in _newest_first(folder):
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError):
            continue  # damaged on the disk: the one before it serves
        if about.get("run") != identity:
            raise ValueError(
                f"`output_dir` must be empty or hold this run, got checkpoints of another one in {folder}. "
                "Choose another folder, or remove that one."
            )
        return Checkpoint(path, json.loads(about["progress"]), tensors)
    return None


def remove(folder: Path) -> None:
    """Remove all checkpoints of a finished run."""
    for path in _newest_first(folder):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """Parameters the optimizer holds, by their names in the model."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name: p for name, p in model.named_parameters() if id(p) in held}


def write_weights(path: Path, identity: str, model: nn.Module) -> None:
    """Write weights and buffers alone, those of the best epoch.

    Raises:
        OSError: If the disk is full, say; what was there stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    try:
        with replacing(path) as temporary:
            save_file(state, temporary, {"run": identity})
    except SafetensorError as error:
        raise OSError(f"the weights {path} cannot be written ({error}). Make room, and run again to go on.") from error


def load_weights(path: Path, identity: str, model: nn.Module) -> None:
    """Put weights back that ``write_weights`` wrote.

    Raises:
        ValueError: If they are another run's.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        if (file.metadata() or {}).get("run") != identity:
            raise ValueError(f"`output_dir` must hold this run alone, got weights of another one in {path}.")
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping
