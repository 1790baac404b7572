"""Accelerate for one run: device, precision, processes, trackers."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_zoosel.features import Team, best_device, join_team
from hf_zoosel.training.recipe import Recipe

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_type(mixed_precision: str | None) -> torch.dtype | None:
    """The compute type of a precision; None for float32."""
    return _AUTOCAST.get(mixed_precision or "no")


def chosen_precision(recipe: Recipe, device: torch.device) -> str:
    """The recipe's precision, or the one that Accelerate's launcher set.

    Raises:
        ValueError: If it is fp16 on a CPU, which Accelerate would leave out in silence.
    """
    chosen = recipe.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if chosen == "fp16" and device.type == "cpu":
        raise ValueError("`mixed_precision` must be 'no' or 'bf16' on a CPU, got 'fp16'. Choose one of them.")
    return chosen


def training_team(device: str | torch.device | None) -> Team:
    """The processes that train together.

    Raises:
        ValueError: If ``device`` is none that this machine has, or, where there are several processes, another than
            the launcher gave this one: Accelerate would put the model there and the rows here.
    """
    from accelerate import PartialState

    team = join_team(device)
    if team.size > 1 and team.device != PartialState().device:
        raise ValueError(
            f"`device` must be left out where {team.size} processes train together, or be a kind such as 'cuda', got "
            f"{str(device)!r} and {PartialState().device} from the launcher. `accelerate launch --cpu` trains on CPUs."
        )
    if team.size > 1 and device is None and team.device.type == "cpu" != best_device().type:
        raise ValueError(
            "`device` must be what the first call of the process had, for its processes speak over that: 'cpu', got "
            "None where there is a GPU. Pass device='cpu', or leave it out of the first call too."
        )
    return team


def start_accelerator(recipe: Recipe, team: Team, log_with: str | None, logs: Path) -> Any:
    """An Accelerator on the team's device, whose trackers write to the folder ``logs`` of this run.

    Running statistics stay with each process until the epoch's end: sent at every forward pass they would break a
    backward pass through two of them.

    Raises:
        ValueError: If Accelerate is configured for sharded training, or the precision or tracker cannot be had.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType, ProjectConfiguration

    # calls in one process may differ in precision; Accelerate would keep the first one's
    AcceleratorState._reset_state(reset_partial_state=False)
    if team.size == 1:  # it would take the first GPU, or the device of the process's first call
        state: Any = PartialState(cpu=team.device.type == "cpu")
        state.device = team.device
    accelerator = Accelerator(
        cpu=team.device.type == "cpu",
        mixed_precision=recipe.mixed_precision,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        log_with=log_with,
        project_config=ProjectConfiguration(str(logs.parents[1]), str(logs.parent)),
    )
    sharded = {DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM}
    if accelerator.distributed_type in sharded:
        raise ValueError(
            f"Accelerate must be configured for one or several whole copies of the model, got "
            f"{accelerator.distributed_type.value}. Choose multi-GPU without sharding in `accelerate config`."
        )
    if log_with is not None:
        accelerator.init_trackers(logs.name, config={name: str(value) for name, value in recipe.to_dict().items()})
    return accelerator


def prepared(
    accelerator: Any, model: nn.Module, optimizer: torch.optim.Optimizer, *, compiled: bool
) -> tuple[Any, Any]:
    """Model and optimizer as Accelerate wraps them."""
    given: Any = torch.compile(model) if compiled else model
    with warnings.catch_warnings():  # torch's new argument would send the buffers once, Accelerate does not know it
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        wrapped, stepping = accelerator.prepare(given, optimizer)
    return wrapped, stepping


def write_on_main(team: Team, write: Callable[[], object]) -> None:
    """Let the main process write, and nobody go on before it is done; what fails there is raised on every process.

    Raises:
        OSError: On the other processes, if it failed; on the main one whatever it was.
    """
    failure: Exception | None = None
    if team.is_main:
        try:
            write()
        except Exception as error:  # the others would wait for ever
            failure = error
    said = team.from_main(None if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    if said is not None:
        raise OSError(f"the main process could not write ({said}).")
