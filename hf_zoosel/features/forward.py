"""One candidate over some rows: batches, autocast, and a batch size that shrinks when memory runs out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_zoosel.features.pixels import PixelBlock
from hf_zoosel.zoo import CandidateError, Network, Preprocess

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
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if dtype not in choices:
        raise ValueError(f"`dtype` must be one of {['auto', *choices]}, got {dtype!r}. Leave it out for 'auto'.")
    return choices[dtype]


@dataclass(frozen=True)
class Pass:
    """Rows through a network: ``features (n, d)``, ``source_probs (n, z)`` or None, float32 on the CPU.

    ``batch_size`` is the size that fitted, for the next rows to start with.
    """

    rows: list[int]
    features: Tensor
    source_probs: Tensor | None
    batch_size: int


@torch.inference_mode()
def run_network(
    network: Network,
    preprocess: Preprocess,
    block: PixelBlock,
    rows: Sequence[int],
    *,
    runtime: Runtime,
    seen: Callable[[int], None],
) -> Pass:
    """Features and source probabilities of the rows of a block that can be read.

    Args:
        network: On ``runtime.device``.
        preprocess: The candidate's.
        block: Holds the rows' pixels, or will.
        rows: Which rows.
        runtime: Device, compute type, batch size.
        seen: Called with the number of rows done, for the progress bar.

    Raises:
        CandidateError: If a feature or probability is not finite, or there is not one vector an image.
        torch.OutOfMemoryError: If not even one image fits.
    """
    from accelerate.utils.memory import should_reduce_batch_size

    batch_size, start = runtime.first_batch_size, 0
    read: list[int] = []
    features, probs = _Rows("features", len(rows)), _Rows("source logits", len(rows))
    while start < len(rows):
        some = rows[start : start + batch_size]
        readable, pixels = block.batch(preprocess.key, some)
        fits = True
        try:
            if readable:
                vectors, source = _forward(network, preprocess, pixels, runtime)
                features.add(vectors)
                if source is not None:
                    probs.add(source)
        except RuntimeError as error:
            fits = not should_reduce_batch_size(error)
            if fits or len(some) == 1:
                raise
        if not fits:  # not in the handler, where the traceback still holds the activations
            batch_size = len(some) // 2
            _release_memory(runtime.device)
            continue
        read.extend(readable)
        start += len(some)
        seen(len(some))
    if not read:
        return Pass([], torch.empty(0, 0), None, batch_size)
    if probs.n not in (0, features.n):
        raise CandidateError("it gives source logits for some batches only.")
    return Pass(read, features.finite(), probs.finite() if probs.n else None, batch_size)


class _Rows:
    """Vectors of up to ``most`` images, laid into one float32 tensor ``(most, width)`` as they come.

    Not a list of batches: a class token is a view that keeps every token's activations alive, and a small
    tensor kept from each batch breaks up the memory that the next batch would take again.
    """

    def __init__(self, what: str, most: int) -> None:
        self.n = 0
        self._what, self._most = what, most
        self._buffer: Tensor | None = None

    def add(self, part: Tensor) -> None:
        """Append ``(n, width)`` vectors; they stay on their device, where a copy a batch would make it wait."""
        if self._buffer is None:
            self._buffer = torch.empty(self._most, part.shape[1], dtype=torch.float32, device=part.device)
        if part.shape[1] != self._buffer.shape[1]:
            widths = f"{self._buffer.shape[1]} and {part.shape[1]}"
            raise CandidateError(f"its {self._what} must be alike in number for all images, got {widths}.")
        self._buffer[self.n : self.n + len(part)] = part
        self.n += len(part)

    def finite(self) -> Tensor:
        """All of them, on the CPU."""
        whole = torch.empty(0, 0) if self._buffer is None else self._buffer[: self.n].cpu()
        bad = (~torch.isfinite(whole)).any(dim=1).sum().item()
        if bad:
            raise CandidateError(f"its {self._what} are not finite for {bad} of {len(whole)} images.")
        return whole if self.n == self._most else whole.clone()


def _forward(
    network: Network, preprocess: Preprocess, pixels: Tensor, runtime: Runtime
) -> tuple[Tensor, Tensor | None]:
    # asynchronous from pinned memory only: MPS would read the pixels after they are gone
    on_device = preprocess.batch(pixels.to(runtime.device, non_blocking=runtime.device.type == "cuda"))
    if on_device is pixels:
        on_device = pixels.clone()  # a module may change its input, which other candidates share
    with torch.autocast(runtime.device.type, runtime.dtype, enabled=runtime.dtype != torch.float32):
        output = network(on_device)
    features = output.features
    if features.shape[:1] != (len(pixels),) or features.ndim != 2 or features.shape[1] == 0 or features.is_complex():
        kind = f"a {str(features.dtype).removeprefix('torch.')} tensor of shape {tuple(features.shape)}"
        raise CandidateError(f"it must give one real vector an image, got {kind} for {len(pixels)} images.")
    logits = None if output.logits is None else output.logits.float().softmax(dim=1)
    return features, logits


def _release_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
