"""Batches for training and for evaluation, made in worker processes.

A worker makes a whole batch, so that rows are read together and only finished pixels travel. The number of workers,
and of processes, changes nothing of what the batches hold.
"""

import multiprocessing
import os
import pickle
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from hf_zoosel.training.augment import View
from hf_zoosel.training.plan import share
from hf_zoosel.training.reading import (
    Batch,
    BatchMaker,
    EvaluationBatch,
    Failure,
    LoadingError,
    SliceMaker,
    StepMaker,
    Stream,
)
from hf_zoosel.training.streams import LabelledRows

_TINY = 512  # images that are read sooner than workers are started


@dataclass(frozen=True)
class Workers:
    """How batches are made.

    Args:
        count: Worker processes; None to choose: none for little work, else one per core but one beside a GPU, 16 at
            most. Beside a CPU one per core that torch's threads leave free, 4 at most, and so none by default: a
            thread that has to share its core holds up all others at every layer. Workers are forked on Linux;
            elsewhere what they do must survive pickle.
        pin: Whether batches lie in page-locked memory, for asynchronous copies to a GPU.
        processes: Processes of this run on this machine, which share its cores.
    """

    count: int | None = None
    pin: bool = False
    processes: int = 1

    def for_images(self, n_images: int, work: object) -> int:
        """Workers for so many images to come."""
        if self.count is not None:
            if self.count < 0:
                raise ValueError(f"`num_workers` must be at least 0, got {self.count}.")
            return self.count
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if n_images < _TINY or (_start_method() != "fork" and not _survives_pickle(work)):
            return 0
        if self.pin:
            return max(1, min(16, cores // self.processes - 1))
        return max(0, min(4, cores // self.processes - torch.get_num_threads()))


class MixedBatches:
    """The batches of steps ``start`` to ``stop - 1``, in order; an iterator, and a context that ends the workers.

    Args:
        target: The target's images.
        source: The source's, beside them; None to train on the target alone.
        seed: Of what is random in a view. Each image of each step has random numbers of its own.
        steps: ``range(start, stop)``.
        rank: This process among ``size``, which gets the rank-th slice of the target rows and of the source rows.
        size: Processes.
        workers: How many workers.

    Attributes:
        waited: Seconds spent waiting for batches so far.

    Raises:
        LoadingError: While iterating, if no row of a stream can be read, a view fails, or a worker dies.
        ValueError: If a batch cannot be shared evenly among the processes.
    """

    def __init__(
        self,
        target: Stream,
        source: Stream | None = None,
        *,
        seed: int,
        steps: range,
        rank: int = 0,
        size: int = 1,
        workers: Workers | None = None,
    ) -> None:
        maker = StepMaker(target, source, seed, rank, size)
        streams = [target] if source is None else [target, source]
        per_step = sum(len(share(one.plan.rows(steps.start), rank, size)) for one in streams)
        self.waited = 0.0
        workers = workers or Workers()
        count = workers.for_images(per_step * len(steps), maker)
        self._loader = _loader(maker, steps, count, pin=workers.pin, lasting=False)
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> "MixedBatches":
        return self

    def __next__(self) -> Batch:
        started = perf_counter()
        try:
            with _clear_errors():
                if self._iterator is None:
                    self._iterator = _start(self._loader)
                return _unless_failed(next(self._iterator))
        finally:
            self.waited += perf_counter() - started

    def __enter__(self) -> "MixedBatches":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._iterator = None  # its workers end with it


class EvaluationBatches:
    """This process's share of some rows, in order; can be gone through again and again.

    Args:
        rows: Images with labels.
        view: What is seen of them.
        batch_size: Rows of a batch of this process.
        rank: This process among ``size``, which gets the rank-th slice of neighbouring rows.
        size: Processes. Shares differ by one row at most.
        workers: How many workers. They live as long as this object.

    Attributes:
        waited: Seconds spent waiting for batches so far.

    Raises:
        LoadingError: While iterating, if the view fails or a worker dies.
    """

    def __init__(
        self,
        rows: LabelledRows,
        view: View,
        batch_size: int,
        *,
        rank: int = 0,
        size: int = 1,
        workers: Workers | None = None,
    ) -> None:
        if rows.labels is None:
            raise ValueError(f"`rows` must have labels to be evaluated on, got none in {rows.name!r}.")
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        mine = np.array_split(np.arange(len(rows)), size)[rank]
        slices = [mine[at : at + batch_size] for at in range(0, len(mine), batch_size)]
        self.waited = 0.0
        workers, maker = workers or Workers(), SliceMaker(rows, view, slices)
        count = workers.for_images(len(mine), maker)
        self._loader = _loader(maker, range(len(slices)), count, pin=workers.pin, lasting=True)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        iterator = None
        while True:
            started = perf_counter()
            try:
                with _clear_errors():
                    iterator = _start(self._loader) if iterator is None else iterator
                    batch = _unless_failed(next(iterator))
            except StopIteration:
                return
            finally:
                self.waited += perf_counter() - started
            yield batch


def _loader(maker: BatchMaker, numbers: range, count: int, *, pin: bool, lasting: bool) -> "DataLoader[Any]":
    return DataLoader(
        maker,  # type: ignore[arg-type]  # a Dataset in all but name
        batch_size=None,
        sampler=numbers,
        num_workers=count,
        collate_fn=_as_it_is,
        pin_memory=pin,
        generator=torch.Generator(),  # or starting it would draw from the caller's
        worker_init_fn=_one_thread,
        multiprocessing_context=_start_method() if count else None,
        persistent_workers=lasting and count > 0,
    )


def _start_method() -> str:
    """Fork where it is safe: the preprocessing of a candidate is a function that need not survive pickle."""
    return "fork" if sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods() else "spawn"


def _survives_pickle(work: object) -> bool:
    try:
        pickle.dumps(work)
    except Exception:  # whatever its parts raise
        return False
    return True


def _start(loader: "DataLoader[Any]") -> Iterator[Any]:
    with warnings.catch_warnings():  # Python 3.12 on warns of any fork beside threads; the workers touch none of them
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        return iter(loader)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)  # a forked OpenMP team would hang, and the training step has the cores


def _as_it_is(batch: Any) -> Any:
    return batch


def _unless_failed(batch: Any) -> Any:
    if isinstance(batch, Failure):
        error = LoadingError(batch.message)
        if batch.details:
            error.add_note(batch.details)
        raise error
    return batch


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except LoadingError:
        raise
    except RuntimeError as error:
        if "worker" not in str(error):
            raise
        raise LoadingError(
            f"A worker that loads images died: {error}. Most often memory, or shared memory (/dev/shm), ran out: pass "
            "a smaller `num_workers`. With `num_workers=0` the reason is shown."
        ) from error
