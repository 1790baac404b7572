"""One candidate over rows that come a chunk at a time: decoded, run, forgotten."""

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_zoosel.features.allocator import freed_memory_kept
from hf_zoosel.features.forward import Runtime, run_network
from hf_zoosel.features.memory import is_out_of_memory
from hf_zoosel.features.pixels import PixelBlock, bytes_of_a_row
from hf_zoosel.features.progress import Progress
from hf_zoosel.tasks.labels import MISSING
from hf_zoosel.tasks.rows import Chunk
from hf_zoosel.zoo import Candidate, CandidateError, Network
from hf_zoosel.zoo.errors import one_line
from hf_zoosel.zoo.provenance import LAYER


class SourceReadError(ValueError):
    """A data set that cannot be read to its end."""


@dataclass(frozen=True)
class Seen:
    """Some neighbouring rows through the network.

    Attributes:
        span: Which rows of the split were looked at.
        rows: Those with features, ascending, ``(n,)`` int64.
        features: Theirs, ``(n, d)`` float32; ``(0, 0)`` where there are none.
        codes: Theirs, ``(n,)`` int64.
        n_unlabelled: Rows left out for want of a label.
        unreadable: Rows whose image could not be read, and why.
    """

    span: range
    rows: Tensor
    features: Tensor
    codes: Tensor
    n_unlabelled: int
    unreadable: dict[int, str]


class RowPass:
    """A candidate that is loaded when there is something to run.

    Args:
        candidate: Resolved.
        runtime: How it runs. ``memory`` bounds the pixels held at a time; elsewhere than on a CPU there are two
            blocks of half of it, one decoded while the other runs.
        labelled: Whether rows without a label are left out.

    Attributes:
        weights: Digest of the network's weights; empty before it is loaded.
    """

    def __init__(self, candidate: Candidate, runtime: Runtime, *, labelled: bool) -> None:
        self.weights = ""
        self._candidate, self._runtime, self._labelled = candidate, runtime, labelled
        self._network: Network | None = None
        self._rows_per_block: int | None = None

    def over(self, chunks: Iterator[Chunk], bars: Progress) -> Generator[Seen, None, None]:
        """Run every chunk.

        Raises:
            SourceReadError: If the data set cannot be read; the error it gave is the cause.
            CandidateError: If the candidate cannot be loaded or run.
        """
        on_cpu = self._runtime.device.type == "cpu"
        with (
            freed_memory_kept() if on_cpu else nullcontext(),
            closing(_ahead(self._blocks(chunks), 0 if on_cpu else 1)) as blocks,
        ):
            for block in blocks:
                with closing(block.pixels):
                    if on_cpu:
                        block.wait()  # decoding beside a forward pass on the same cores would slow both
                    yield self._run(block, bars)

    def _blocks(self, chunks: Iterator[Chunk]) -> Iterator["_Block"]:
        preprocess = self._candidate.preprocess
        for chunk in _readable(chunks):
            size = self._size_of_a_block(chunk)
            for start in range(0, len(chunk.rows), size):
                some = range(start, min(start + size, len(chunk.rows)))
                wanted = [i for i in some if not self._labelled or chunk.codes[i] != MISSING]
                pixels = PixelBlock(
                    chunk.images,
                    {preprocess.key: (preprocess, wanted)},
                    workers=self._runtime.workers,
                    pinned=self._runtime.device.type == "cuda",
                )
                yield _Block(chunk, some, wanted, pixels)

    def _size_of_a_block(self, chunk: Chunk) -> int:
        if self._rows_per_block is None:
            try:
                size = bytes_of_a_row(chunk.images, range(len(chunk.rows)), [self._candidate.preprocess])
            except Exception as error:
                raise _unreadable_source(error, chunk.rows.start) from error
            if not size:  # no image in sight: of the next chunk, perhaps
                return len(chunk.rows)
            share = self._runtime.memory // (1 if self._runtime.device.type == "cpu" else 2)
            self._rows_per_block = max(1, share // size)
        return self._rows_per_block

    def _run(self, block: "_Block", bars: Progress) -> Seen:
        features, done = torch.zeros(0, 0), list[int]()
        if block.wanted:
            try:
                features, done = self._forward(block, bars)
            except Exception as error:
                block.wait()  # the data set may be what failed
                raise _candidate_error(error) from error
        block.wait()
        first = block.chunk.rows.start
        at = torch.tensor(done, dtype=torch.int64)
        return Seen(
            span=range(first + block.positions.start, first + block.positions.stop),
            rows=at + first,
            features=features,
            codes=torch.from_numpy(block.chunk.codes)[at],
            n_unlabelled=len(block.positions) - len(block.wanted),
            unreadable={first + i: why for i, why in sorted(block.pixels.unreadable.items())},
        )

    def _forward(self, block: "_Block", bars: Progress) -> tuple[Tensor, list[int]]:
        if self._network is None:
            with torch.random.fork_rng(devices=[]):  # building a network draws random weights
                self._network = self._candidate.load()
            self.weights = self._network.weights_digest()  # before a forward pass can change a buffer
            self._network.to(self._runtime.device)
        done = run_network(
            self._network,
            self._candidate.preprocess,
            block.pixels,
            block.wanted,
            parts=(LAYER,),
            runtime=self._runtime,
            seen=bars.images_done,
        )
        self._runtime = replace(self._runtime, batch_size=done.batch_size)
        return done.parts.get(LAYER, torch.zeros(0, 0)), done.rows


@dataclass(frozen=True)
class _Block:
    """Some ``positions`` of a chunk, of which the ``wanted`` are being decoded."""

    chunk: Chunk
    positions: range
    wanted: list[int]
    pixels: PixelBlock

    def wait(self) -> None:
        """Wait for the pixels; a data set that fails under us is heard here."""
        try:
            self.pixels.finish()
        except Exception as error:
            raise _unreadable_source(error, self.chunk.rows.start + self.positions.start) from error

    def close(self) -> None:
        self.pixels.close()


def _readable(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    read = 0
    while True:
        try:
            chunk = next(chunks, None)
        except Exception as error:  # in the way of any file system, network or generator
            raise _unreadable_source(error, read) from error
        if chunk is None:
            return
        read = chunk.rows.stop
        yield chunk


def _unreadable_source(error: Exception, row: int) -> SourceReadError:
    return SourceReadError(
        f"`dataset` must be readable to its end, got {type(error).__name__} after row {row}: {one_line(error)}"
    )


def _candidate_error(error: Exception) -> CandidateError:
    if isinstance(error, CandidateError):
        return error
    if is_out_of_memory(error):
        return CandidateError("out of memory even with one image a batch")
    return CandidateError(f"{type(error).__name__}: {one_line(error)}")


def _ahead(blocks: Iterator[_Block], n: int) -> Generator[_Block, None, None]:
    """The blocks, ``n`` of them begun before they are asked for."""
    begun: deque[_Block] = deque()
    try:
        for block in blocks:
            begun.append(block)
            if len(begun) > n:
                yield begun.popleft()
        while begun:
            yield begun.popleft()
    finally:
        for block in begun:
            block.close()
