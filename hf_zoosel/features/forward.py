"""One candidate over some rows: batches, autocast, and a batch size that shrinks when memory runs out."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_zoosel.features.folding import norms_folded
from hf_zoosel.features.layers import AbsentPartError
from hf_zoosel.features.memory import is_out_of_memory, release_memory
from hf_zoosel.features.observers import BASE_PARTS, Observer, observers_of
from hf_zoosel.features.pixels import PixelBlock
from hf_zoosel.zoo import CandidateError, Network, Preprocess
from hf_zoosel.zoo.errors import one_line

_GPU_BATCH = 128


@dataclass(frozen=True)
class Runtime:
    """How networks are run.

    Attributes:
        device: Where.
        dtype: Compute type; anything but float32 runs under autocast.
        batch_size: Images a forward pass; None for 2 a thread on a CPU and 128 elsewhere.
        memory: Bytes of preprocessed pixels held at a time.
        workers: Threads that decode; None for one per core, 16 at most.
    """

    device: torch.device
    dtype: torch.dtype
    batch_size: int | None = None
    memory: int = 2**30
    workers: int | None = None

    @property
    def computed_in(self) -> str:
        """What features are kept apart by: an accelerator's float32 is less exact than a CPU's."""
        dtype = str(self.dtype).removeprefix("torch.")
        return dtype if self.device.type == "cpu" else f"{dtype} on {self.device.type}"

    @property
    def first_batch_size(self) -> int:
        """The size to try first."""
        if self.batch_size is not None:
            return self.batch_size
        return max(4, 2 * torch.get_num_threads()) if self.device.type == "cpu" else _GPU_BATCH


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The compute type a person asked for.

    Args:
        dtype: ``"auto"`` (bfloat16 on a GPU that has it, float32 elsewhere), ``"float32"``,
            ``"bfloat16"`` or ``"float16"``.
        device: Where networks run.

    Raises:
        ValueError: If it is none of these.
    """
    choices = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" and _has_bfloat16(device) else torch.float32
    if dtype not in choices:
        raise ValueError(f"`dtype` must be one of {['auto', *choices]}, got {dtype!r}. Leave it out for 'auto'.")
    return choices[dtype]


def _has_bfloat16(device: torch.device) -> bool:
    """Whether a GPU computes in bfloat16 itself; older ones emulate it, slower than float32."""
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


@dataclass(frozen=True)
class Pass:
    """Rows through a network: ``parts``, each ``(n, width)`` float32 on the CPU, and why others are ``absent``.

    ``batch_size`` is the size that fitted, for the next rows to start with.
    """

    rows: list[int]
    parts: Mapping[str, Tensor]
    absent: Mapping[str, str]
    batch_size: int


def run_network(
    network: Network,
    preprocess: Preprocess,
    block: PixelBlock,
    rows: Sequence[int],
    *,
    parts: Collection[str],
    runtime: Runtime,
    seen: Callable[[int], None],
) -> Pass:
    """What is asked for of the rows of a block that can be read, from one forward pass.

    On a CPU batch normalisations are folded meanwhile; to find out which, the first image goes through twice more.

    Args:
        network: On ``runtime.device``.
        preprocess: The candidate's.
        block: Holds the rows' pixels, or will.
        rows: Which rows.
        parts: Which parts; see ``observers.py``.
        runtime: Device, compute type, batch size.
        seen: Called with the number of rows done, for the progress bar.

    Raises:
        CandidateError: If a feature or logit is not finite, or there is not one vector an image.
        torch.OutOfMemoryError: If not even one image fits.
    """
    collected = _Collected(parts, len(rows))
    batch_size, start = runtime.first_batch_size, 0
    read: list[int] = []
    with _folded(network, preprocess, block, rows, parts=parts, runtime=runtime):
        while start < len(rows):
            first = bool(collected.observers) and not read  # observers look for their layer on one image
            some = rows[start : start + (1 if first else batch_size)]
            readable, pixels = block.batch(preprocess.key, some)
            fits = True
            try:
                if readable:
                    collected.add(network, preprocess, pixels, runtime)
            except RuntimeError as error:
                fits = not is_out_of_memory(error)
                if fits or len(some) == 1:
                    raise
            if not fits:  # not in the handler, where the traceback still holds the activations
                batch_size = len(some) // 2
                release_memory(runtime.device)
                continue
            read.extend(readable)
            start += len(some)
            seen(len(some))
    return Pass(read, collected.finite(), collected.absent, batch_size)


def _folded(
    network: Network,
    preprocess: Preprocess,
    block: PixelBlock,
    rows: Sequence[int],
    *,
    parts: Collection[str],
    runtime: Runtime,
) -> AbstractContextManager[Any]:
    """Folded normalisations, where that is faster and nothing looks inside the network."""
    if runtime.device.type == "cpu" and runtime.dtype == torch.float32 and set(parts).issubset(BASE_PARTS):
        for row in rows:
            readable, pixels = block.batch(preprocess.key, [row])
            if readable:
                return norms_folded(network, _on_device(preprocess, pixels, runtime))
    return nullcontext()


@dataclass
class _Collected:
    """The parts of the rows done so far."""

    wanted: Collection[str]
    most: int
    absent: dict[str, str] = field(default_factory=dict)
    observers: dict[str, Observer] = field(init=False)
    _rows: dict[str, "_Rows"] = field(default_factory=dict)
    _n: int = 0

    def __post_init__(self) -> None:
        self.observers = observers_of(self.wanted)

    def add(self, network: Network, preprocess: Preprocess, pixels: Tensor, runtime: Runtime) -> None:
        """Run one batch; it counts as a whole or, where it raises, not at all."""
        recorded = [part for part, observer in self.observers.items() if observer.needs_gradients]
        try:
            with torch.no_grad():  # not inference_mode: what a network keeps of it could not be trained through
                self._put(_forward(network, _on_device(preprocess, pixels, runtime), runtime, self), len(pixels))
            return
        except Exception as error:  # a network may fail at being recorded alone, as at `.numpy()` on the way
            if not recorded or is_out_of_memory(error):
                raise
            reason = f"it does not run while gradients are recorded ({type(error).__name__}: {one_line(error)})"
        for part in recorded:
            self.drop(part, reason)
        self.add(network, preprocess, pixels, runtime)

    def _put(self, batch: Mapping[str, Tensor], n: int) -> None:
        for part, rows in batch.items():
            self._rows.setdefault(part, _Rows(part.replace("_", " "), self.most)).put(rows, self._n)
        self._n += n
        if any(rows.n < self._n for rows in self._rows.values()) or "source_logits" in self.absent.keys() & self._rows:
            raise CandidateError("it gives source logits for some batches only.")

    def drop(self, part: str, reason: str) -> None:
        """Go on without a part that the network turns out not to give."""
        if self.observers.pop(part, None) is not None:
            self.absent[part] = reason
            self._rows.pop(part, None)

    def finite(self) -> dict[str, Tensor]:
        """All of them, on the CPU; a part beside features and logits that is not finite is absent."""
        parts = {}
        for part, rows in self._rows.items():
            try:
                parts[part] = rows.finite()
            except CandidateError as error:
                if part in BASE_PARTS:
                    raise
                self.absent[part] = str(error).removesuffix(".")
        return parts


class _Rows:
    """Vectors of up to ``most`` images, laid into one float32 tensor ``(most, width)`` as they come.

    Not a list of batches: a class token is a view that keeps every token's activations alive, and a small
    tensor kept from each batch breaks up the memory that the next batch would take again.
    """

    def __init__(self, what: str, most: int) -> None:
        self.n = 0
        self._what, self._most = what, most
        self._buffer: Tensor | None = None

    def put(self, part: Tensor, start: int) -> None:
        """Take ``(n, width)`` vectors from row ``start`` on; a copy to the CPU each batch would make a GPU wait."""
        if self._buffer is None:
            self._buffer = torch.empty(self._most, part.shape[1], dtype=torch.float32, device=part.device)
        if part.shape[1] != self._buffer.shape[1]:
            widths = f"{self._buffer.shape[1]} and {part.shape[1]}"
            raise CandidateError(f"its {self._what} must be alike in number for all images, got {widths}.")
        self.n = start + len(part)
        self._buffer[start : self.n] = part

    def finite(self) -> Tensor:
        """All of them, on the CPU."""
        whole = torch.empty(0, 0) if self._buffer is None else self._buffer[: self.n].cpu()
        if not whole.sum().isfinite():  # so is every entry otherwise, found without a temporary of this size
            bad = (~torch.isfinite(whole)).any(dim=1).sum().item()
            if bad:
                raise CandidateError(f"its {self._what} are not finite for {bad} of {len(whole)} images.")
        return whole if self.n == self._most else whole.clone()


def _on_device(preprocess: Preprocess, pixels: Tensor, runtime: Runtime) -> Tensor:
    # asynchronous from pinned memory only: MPS would read the pixels after they are gone
    on_device = preprocess.batch(pixels.to(runtime.device, non_blocking=runtime.device.type == "cuda"))
    return pixels.clone() if on_device is pixels else on_device  # a module may change what other candidates share


def _forward(network: Network, pixels: Tensor, runtime: Runtime, collected: _Collected) -> dict[str, Tensor]:
    """One batch's rows of every wanted part it gives; the others are noted as absent."""
    with ExitStack() as stack:
        for observer in collected.observers.values():
            stack.enter_context(observer.watching(network.module))
        with torch.autocast(runtime.device.type, runtime.dtype, enabled=runtime.dtype != torch.float32):
            output = network(pixels)
    features = output.features
    if features.shape[:1] != (len(pixels),) or features.ndim != 2 or features.shape[1] == 0 or features.is_complex():
        kind = f"a {str(features.dtype).removeprefix('torch.')} tensor of shape {tuple(features.shape)}"
        raise CandidateError(f"it must give one real vector an image, got {kind} for {len(pixels)} images.")
    parts = {"features": features.detach()}
    if output.logits is not None:  # a class that is ruled out has a logit of -inf
        parts["source_logits"] = output.logits.detach().float().clamp_min(torch.finfo(torch.float32).min)
    else:
        collected.absent["source_logits"] = "it has no source head"
    for part, observer in list(collected.observers.items()):
        try:
            parts[part] = observer.rows(output).detach()
        except AbsentPartError as error:
            collected.drop(part, str(error))
        except Exception as error:  # a layer that cannot be differentiated image by image, in whatever way
            if is_out_of_memory(error):
                raise
            collected.drop(part, f"it cannot be had ({type(error).__name__}: {one_line(error)})")
    return {part: rows for part, rows in parts.items() if part in collected.wanted}
