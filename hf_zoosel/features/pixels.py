"""Images decoded once for all candidates, each distinct preprocessing computed once, in worker threads.

Threads, not processes: decoding and resizing release the interpreter lock, nothing has to be pickled, and
the pixels land where the network reads them. They copy with NumPy: a torch operation in a thread starts
an OpenMP team that lives as long as the thread and slows every forward pass beside it, idle or not. For
the same reason the threads end with the block on a CPU.
"""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.tasks import Encoded, ImageError, Images
from hf_zoosel.zoo import CandidateError, Preprocess

_READ_AT_ONCE, _ENCODED_AT_ONCE = 32, 128


def default_workers() -> int:
    """Threads that decode: one per core this process may use, 16 at most."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def bytes_of_a_row(images: Images, rows: Iterable[int], preprocesses: Sequence[Preprocess]) -> int:
    """Bytes of one row's pixels under all preprocessings, from the first row that can be read; 0 if none can."""
    for row in rows:
        try:
            image = images.encoded([row])[0].decode()
        except ImageError:
            continue
        size = 0
        for preprocess in preprocesses:
            try:
                size += preprocess.pixels(image).nbytes
            except Exception:  # the block reports it for the candidates it concerns
                continue
        return size
    return 0


@dataclass
class _Frame:
    """Where one preprocessing's pixels of a block go: ``buffer (n_rows, ...)``, one slot a row."""

    preprocess: Preprocess
    slots: Mapping[int, int]
    pinned: bool
    buffer: Tensor | None = None
    failure: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, row: int, pixels: np.ndarray) -> None:
        """Store one row's pixels; the first one decides the shape."""
        with self.lock:
            if self.buffer is None:
                shape, dtype = (len(self.slots), *pixels.shape), torch.from_numpy(pixels).dtype
                self.buffer = torch.empty(shape, dtype=dtype, pin_memory=self.pinned)
        if self.buffer.shape[1:] != pixels.shape:
            shapes = f"{tuple(self.buffer.shape[1:])} and {pixels.shape}"
            raise ValueError(f"all images must come out alike, got pixels of shape {shapes}")
        self.buffer.numpy()[self.slots[row]] = pixels


class PixelBlock:
    """The pixels of some rows under every preprocessing that needs them.

    Work starts at once; :meth:`batch` waits for what it needs.

    Args:
        images: The task's images; read by one thread only.
        needs: For each preprocessing (by key): itself and the rows that need it.
        workers: How many threads decode and transform; one per core, 16 at most, if None.
        pinned: Whether to lay the pixels in page-locked memory, for asynchronous copies to a GPU.
    """

    def __init__(
        self,
        images: Images,
        needs: Mapping[str, tuple[Preprocess, Sequence[int]]],
        *,
        workers: int | None = None,
        pinned: bool = False,
    ) -> None:
        self.unreadable: dict[int, str] = {}
        self._images = images
        self._frames = {
            key: _Frame(preprocess, {row: slot for slot, row in enumerate(rows)}, pinned)
            for key, (preprocess, rows) in needs.items()
        }
        rows = sorted({row for frame in self._frames.values() for row in frame.slots})
        self._done: dict[int, Future[None]] = {row: Future() for row in rows}
        self._in_flight = threading.Semaphore(_ENCODED_AT_ONCE)
        self._stop = False
        self._pool = ThreadPoolExecutor(workers or default_workers(), "hf-zoosel-decode")
        self._reader = threading.Thread(target=self._read, args=(rows,), daemon=True)
        self._reader.start()

    def wait(self, rows: Iterable[int] | None = None) -> None:
        """Wait until these rows (all by default) are ready; raises what kept them from being read."""
        futures = [self._done[row] for row in rows] if rows is not None else list(self._done.values())
        wait(futures)
        for future in futures:
            future.result()

    def finish(self) -> None:
        """Wait until every row is ready, and end the threads."""
        self.wait()
        self._reader.join()
        self._pool.shutdown()

    def close(self) -> None:
        """Stop reading ahead, end the threads and let go of the pixels."""
        self._stop = True
        self._reader.join()
        self._pool.shutdown()
        self._frames.clear()
        self._done.clear()

    def batch(self, key: str, rows: Sequence[int]) -> tuple[list[int], Tensor]:
        """The pixels of some rows.

        Returns:
            The rows that could be read, and their pixels ``(n, ...)`` as the preprocessing gives them.

        Raises:
            CandidateError: If the preprocessing failed on a readable image.
        """
        self.wait(rows)
        frame = self._frames[key]
        if frame.failure is not None:
            raise CandidateError(f"its preprocessing failed: {frame.failure}.")
        readable = [row for row in rows if row not in self.unreadable]
        if not readable or frame.buffer is None:
            return [], torch.empty(0)
        slots = [frame.slots[row] for row in readable]
        if slots == list(range(slots[0], slots[0] + len(slots))):
            return readable, frame.buffer[slots[0] : slots[-1] + 1]
        return readable, frame.buffer[slots]

    def _read(self, rows: Sequence[int]) -> None:
        for start in range(0, len(rows), _READ_AT_ONCE):
            some = rows[start : start + _READ_AT_ONCE]
            if not self._may_read(len(some)):
                return
            try:
                for row, image in zip(some, self._images.encoded(some), strict=True):
                    self._pool.submit(self._prepare, row, image)
            except BaseException as error:  # a data set that fails under us: the caller hears it from wait()
                for row in rows[start:]:
                    self._done[row].set_exception(error)
                return

    def _may_read(self, n: int) -> bool:
        """Wait until ``n`` more encoded images may be held; false once the block is closed."""
        for _ in range(n):
            while not self._in_flight.acquire(timeout=0.1):
                if self._stop:
                    return False
        return not self._stop

    def _prepare(self, row: int, encoded: Encoded) -> None:
        failure: BaseException | None = None
        try:
            if not self._stop:
                self._transform(row, encoded)
        except BaseException as error:  # sys.exit() in a person's transform, say: the caller hears it from wait()
            failure = error
        self._in_flight.release()
        if failure is None:
            self._done[row].set_result(None)
        else:
            self._done[row].set_exception(failure)

    def _transform(self, row: int, encoded: Encoded) -> None:
        try:
            image = encoded.decode()
        except Exception as error:  # beside ImageError there is MemoryError: no image, no pixels
            self.unreadable[row] = str(error) if isinstance(error, ImageError) else f"{type(error).__name__}: {error}"
            return
        for frame in list(self._frames.values()):
            if row not in frame.slots or frame.failure is not None:
                continue
            try:
                frame.put(row, frame.preprocess.pixels(image))
            except Exception as error:  # a person's transform may fail in any way; its candidate says so
                frame.failure = f"{type(error).__name__}: {error}"
