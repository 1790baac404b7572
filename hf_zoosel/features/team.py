"""The processes a call is shared by: one alone, or those started by ``accelerate launch`` or torchrun."""

import atexit
import gc
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_PATIENCE = timedelta(hours=6)  # others wait while the main process trains a reference, or scores


@dataclass(frozen=True)
class Team:
    """This process among its peers.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        device: Where it runs networks.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that scores and prints."""
        return self.rank == 0

    @property
    def n_here(self) -> int:
        """How many of them share this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.size)) if self.size > 1 else 1

    def moved(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU on the device.

        A copy to CUDA does not wait, from page-locked memory; one to MPS must, it would read what is gone already
        (https://github.com/pytorch/pytorch/issues/139550).
        """
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")

    def gather(self, item: T) -> list[T]:
        """One object from each process, on every process, in rank order."""
        if self.size == 1:
            return [item]
        from accelerate.utils import gather_object

        return list(gather_object([item]))

    def from_main(self, item: T) -> T:
        """The main process's object, on every process."""
        if self.size == 1:
            return item
        from accelerate.utils import broadcast_object_list

        box = [item]
        broadcast_object_list(box, from_process=0)
        return box[0]

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Stack every process's ``(n_i, ...)`` tensor in rank order; lengths may differ, and be 0."""
        if self.size == 1:
            return rows
        from accelerate import PartialState
        from accelerate.utils import gather, pad_across_processes

        shapes = self.gather(tuple(rows.shape))
        longest = max(shapes)
        if 0 in longest[1:]:  # accelerate cannot reshape what has no elements
            return rows.new_zeros((sum(shape[0] for shape in shapes), *longest[1:]))
        if len(rows) == 0:  # a process without rows does not know their width
            rows = rows.new_zeros((0, *longest[1:]))
        # NCCL takes tensors on a process's own GPU only, wherever the networks run
        padded = pad_across_processes(rows.to(PartialState().device), dim=0)
        stacked = gather(padded).cpu().view(self.size, *longest)
        return torch.cat([part[: shape[0]] for part, shape in zip(stacked, shapes, strict=True)])


def join_team(device: str | torch.device | None = None) -> Team:
    """Find out who takes part.

    Args:
        device: Where to run; by default what Accelerate chooses under a launcher, else CUDA, MPS or CPU, and the CPU
            where ``accelerate launch --cpu`` asks for it.

    Raises:
        ValueError: If ``device`` is not a device torch knows or has.
    """
    chosen = None if device is None else _checked(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or torch.distributed.is_initialized():
        from accelerate import PartialState

        if not torch.distributed.is_initialized():
            atexit.register(_leave)  # threads of a group that is still there can abort Python as it ends
        # without cpu=True Accelerate silently makes one process of several on a machine without a GPU
        state: Any = PartialState(cpu=(chosen or best_device()).type == "cpu", timeout=_PATIENCE)
        if chosen is None or str(chosen) == state.device.type:
            chosen = state.device
        return Team(state.process_index, state.num_processes, chosen)
    if chosen is not None and str(chosen) == "cuda":
        chosen = torch.device("cuda", torch.cuda.current_device())
    return Team(0, 1, chosen or best_device())


def _leave() -> None:
    """End the group; that of NCCL waits for the others there, who may wait for one that failed: it ends by itself."""
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        gc.collect()  # wrapped models are cycles that hold the group, and its threads live as long as it does
        torch.distributed.destroy_process_group()


def _checked(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"`device` must be one this machine has, got {device!r} ({reason}). Leave it out.") from None
    if found.type == "cpu":
        return torch.device("cpu")
    if found.type == "meta":
        raise ValueError(f"`device` must be one that computes, got {device!r}. Leave it out.")
    return found


def best_device() -> torch.device:
    """Where networks run if nobody says where: on a GPU if there is one, and if Accelerate is not told otherwise."""
    from accelerate.utils import parse_flag_from_env

    if parse_flag_from_env("ACCELERATE_USE_CPU"):  # of `accelerate launch --cpu`
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
