"""What a run says of itself: losses, rates and waiting times by epoch, and a progress bar."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hf_zoosel.features import Team

_CHECK_EVERY = 10  # steps between looks at losses on an accelerator, each of which waits for it


class DivergedError(ValueError):
    """The loss is no longer a finite number."""


class Book:
    """Terms of the loss as they come, averaged over an epoch.

    Args:
        total: Steps of the run.
        done: Steps done before.
        folder: Where its checkpoints are.
        team: The processes that take part.
        shown: Whether to draw a progress bar.
        begun: What ``so_far`` said of the epoch that is to be gone on with.
    """

    def __init__(
        self, total: int, done: int, folder: Path, team: Team, *, shown: bool, begun: Mapping[str, Any] | None = None
    ) -> None:
        self.total = total
        self._folder, self._team = folder, team
        self._bar = tqdm(total=total, initial=done, desc="training", unit="step", disable=not shown)
        self._pending: dict[int, dict[str, Tensor]] = {}
        before = begun or {"sums": {}, "steps": 0, "images": 0, "seconds": 0.0, "waited": 0.0}
        self._sums: dict[str, float] = dict(before["sums"])
        self._steps, self._images = before["steps"], before["images"]
        self._waited = -before["waited"]
        self._seconds_before = before["seconds"]
        self._bad: tuple[int, str] | None = None
        self._started = time.perf_counter()

    def add(self, step: int, terms: dict[str, Tensor], share: float) -> None:
        """Note the terms of a piece that is ``share`` of a step."""
        row = self._pending.setdefault(step, {})
        for name, term in terms.items():
            row[name] = row.get(name, 0.0) + term.detach().float() * share

    def step_done(self, n_images: int) -> None:
        """A step is finished; losses that lie on the CPU are looked at now, others every ten steps."""
        self._steps += 1
        self._images += n_images
        on_cpu = all(term.device.type == "cpu" for row in self._pending.values() for term in row.values())
        if on_cpu or len(self._pending) >= _CHECK_EVERY:
            self._read()
        self._bar.update()
        if self._bad is not None and self._team.size == 1:
            self.check()

    def check(self, step: int | None = None, model: nn.Module | None = None) -> None:
        """Raise on all processes if a loss was not finite on one; called by all of them at the end of an epoch.

        Args:
            step: The last one.
            model: What it left; the losses of an epoch say nothing of its last step.

        Raises:
            DivergedError: With the step, and where the last good checkpoint is.
        """
        self._read()
        if self._bad is None and step is not None and model is not None and not _is_finite(model):
            self._bad = (step, "weights that are not")
        bad = sorted(one for one in self._team.gather(self._bad) if one is not None)
        if not bad:
            return
        step, found = bad[0]
        kept = sorted(self._folder.glob("step-*.safetensors"))
        good = f"The last good checkpoint is {kept[-1]}." if kept else "No checkpoint had been written."
        raise DivergedError(
            f"`learning_rate` must keep the loss finite, got {found} at step {step + 1} of {self.total}. {good} "
            "Lower the rate, or set `max_grad_norm`."
        )

    def epoch_done(self, waited: float) -> dict[str, float]:
        """Means of the epoch, and begin the next.

        Args:
            waited: Seconds the loop has waited for images, since the run began.
        """
        seconds = self._seconds()
        row = {name: total / self._steps for name, total in self._sums.items()}
        row |= {"seconds": seconds, "images_per_second": self._images / seconds, "waited": waited - self._waited}
        self._sums, self._steps, self._images = {}, 0, 0
        self._waited, self._started, self._seconds_before = waited, time.perf_counter(), 0.0
        return row

    def so_far(self, waited: float) -> dict[str, Any]:
        """Sums of the epoch that is not over, to go on from as ``begun``; ``check`` goes before."""
        assert not self._pending, "the last losses have not been read"
        counts = {"steps": self._steps, "images": self._images}
        return {"sums": dict(self._sums), **counts, "seconds": self._seconds(), "waited": waited - self._waited}

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    def _read(self) -> None:
        """Bring the pending terms to the CPU, and stop counting at the first that is not finite."""
        if not self._pending:
            return
        names = sorted({name for row in self._pending.values() for name in row})
        zero = torch.zeros((), device=next(iter(next(iter(self._pending.values())).values())).device)
        table = torch.stack([torch.stack([row.get(name, zero) for name in names]) for row in self._pending.values()])
        for step, values in zip(self._pending, table.cpu().double().tolist(), strict=True):
            loss = values[names.index("loss")]
            if self._bad is None and not math.isfinite(loss):
                self._bad = (step, str(loss))
            for name, value in zip(names, values, strict=True):
                self._sums[name] = self._sums.get(name, 0.0) + value
        self._bar.set_postfix_str(f"loss {loss:.3f}")
        self._pending.clear()

    def __enter__(self) -> "Book":
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def _is_finite(model: nn.Module) -> bool:
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
