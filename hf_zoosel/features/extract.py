"""Every candidate's features on one task: images decoded once, one forward pass each, results as they come."""

import logging
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.features.allocator import freed_memory_kept
from hf_zoosel.features.forward import Runtime, run_network
from hf_zoosel.features.memory import is_out_of_memory
from hf_zoosel.features.observers import BASE_PARTS
from hf_zoosel.features.pixels import PixelBlock, bytes_of_a_row
from hf_zoosel.features.progress import Progress
from hf_zoosel.features.record import Features
from hf_zoosel.features.store import Chunk, Entry, FeatureStore, assemble, rows_with
from hf_zoosel.features.team import Team
from hf_zoosel.tasks import Task
from hf_zoosel.zoo import Candidate, CandidateError, Network, Preprocess

logger = logging.getLogger(__name__)
_Loader = Callable[[], Network]
_ROWS_PER_CHUNK = 1024  # what a kill can lose of one candidate


@dataclass
class _Job:
    """One candidate's share of the work on this process."""

    candidate: Candidate
    entry: Entry
    parts: tuple[str, ...]
    lacking: tuple[str, ...]
    missing: list[int]
    runtime: Runtime
    failure: str | None = None
    seconds: float = 0.0
    unreadable: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Own:
    """What this process has of one candidate: ``rows (n,)``, their ``parts``, and why others are ``absent``."""

    rows: Tensor
    parts: Mapping[str, Tensor]
    absent: Mapping[str, str]
    n_parameters: int


def extract(
    candidates: Sequence[Candidate],
    task: Task,
    *,
    parts: Collection[str] = BASE_PARTS,
    store: FeatureStore,
    runtime: Runtime,
    team: Team,
    progress: bool = True,
) -> Generator[tuple[Candidate, Features | CandidateError], None, None]:
    """Yield each candidate's features, in order, as soon as they are complete.

    Rows are shared out among the processes of the team; every process gets all features. At any time
    this holds ``runtime.memory`` bytes of pixels, one network (two where a GPU runs one while the next loads),
    128 encoded images, one decoded image a worker, and the parts of one candidate (``4 (d + z)`` bytes a row,
    40 kB more for gradients, twice while they are put in order); features already computed lie in the store,
    or in memory where it does not take them. A task whose pixels exceed that goes through the zoo in blocks.

    Args:
        candidates: Resolved, not loaded.
        task: What to look at.
        parts: What is wanted beside features and source logits; see ``observers.py``.
        store: Where features are found and kept.
        runtime: How networks run.
        team: The processes that share the work.
        progress: Whether to show progress bars (on the main process).

    Yields:
        The candidate, and its features or what kept it from having any.
    """
    mine = list(range(team.rank, len(task), team.size))
    digests = _digests(task, mine)
    wanted = (*BASE_PARTS, *sorted(set(parts).difference(BASE_PARTS)))  # one order on all processes
    jobs = [_job(candidate, store, runtime, digests, wanted) for candidate in candidates]
    todo = sorted({row for job in jobs for row in job.missing})
    pinned = runtime.device.type == "cuda"
    with (
        freed_memory_kept() if runtime.device.type == "cpu" and todo else nullcontext(),
        Progress(len(jobs), sum(len(job.missing) for job in jobs), progress and team.is_main) as bars,
    ):
        blocks = _blocks(task, jobs, todo, runtime.memory)
        for number, rows in enumerate(blocks):
            here = set(rows)
            needs = _needs(jobs, rows)
            with closing(PixelBlock(task.images, needs, workers=runtime.workers, pinned=pinned)) as block:
                if runtime.device.type == "cpu":
                    block.finish()  # decoding beside a forward pass on the same cores would slow both
                for job, load in _loaders(jobs, here, block):
                    _run(job, load, block, here, keys=digests, bars=bars)
                    if number == len(blocks) - 1:
                        bars.candidate_done()
                        yield job.candidate, _collect(job, mine, digests, team)


def _job(
    candidate: Candidate, store: FeatureStore, runtime: Runtime, digests: dict[int, bytes], parts: tuple[str, ...]
) -> _Job:
    entry = store.entry(candidate, runtime.computed_in)
    wanted = list(digests.values())
    chunks = entry.read(wanted, parts)
    cached = {part: rows_with(chunks, wanted, part) for part in parts}
    lacking = tuple(part for part in parts if len(cached[part]) < len(wanted))
    complete = set(range(len(wanted))).intersection(*cached.values())
    missing = [row for position, row in enumerate(digests) if position not in complete]
    return _Job(candidate, entry, parts, lacking, missing, runtime)


def _digests(task: Task, rows: Sequence[int], at_once: int = 64) -> dict[int, bytes]:
    """Digest of each row's image, reading few at a time."""
    digests: dict[int, bytes] = {}
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        digests.update(zip(some, (image.digest for image in task.images.encoded(some)), strict=True))
    return digests


def _needs(jobs: Sequence[_Job], rows: Sequence[int]) -> dict[str, tuple[Preprocess, list[int]]]:
    """For each distinct preprocessing, the rows of the block some candidate needs under it."""
    here = set(rows)
    needs: dict[str, tuple[Preprocess, set[int]]] = {}
    for job in jobs:
        preprocess = job.candidate.preprocess
        needs.setdefault(preprocess.key, (preprocess, set()))[1].update(here.intersection(job.missing))
    return {key: (preprocess, sorted(some)) for key, (preprocess, some) in needs.items() if some}


def _blocks(task: Task, jobs: Sequence[_Job], rows: Sequence[int], memory: int) -> list[Sequence[int]]:
    """Cut the rows so that one block's pixels, under every preprocessing, fit into ``memory`` bytes."""
    preprocesses = {job.candidate.preprocess.key: job.candidate.preprocess for job in jobs if job.missing}
    size = bytes_of_a_row(task.images, rows, list(preprocesses.values()))
    per_block = max(1, memory // max(1, size))
    return [rows[start : start + per_block] for start in range(0, len(rows), per_block)] or [[]]


def _loaders(jobs: Sequence[_Job], rows: set[int], block: PixelBlock) -> Iterator[tuple[_Job, _Loader | None]]:
    """Each job with what gives its network if it has something to run; on a GPU the next one loads meanwhile."""

    def to_run(job: _Job) -> bool:
        return job.failure is None and any(row in rows and row not in block.unreadable for row in job.missing)

    if all(job.runtime.device.type == "cpu" for job in jobs):
        for job in jobs:
            yield job, partial(_load, job.candidate) if to_run(job) else None
        return
    with ThreadPoolExecutor(1, "hf-zoosel-load") as thread:

        def start(job: _Job | None) -> _Loader | None:
            return thread.submit(_load, job.candidate).result if job is not None and to_run(job) else None

        ahead = start(jobs[0])
        for job, following in zip_longest(jobs, jobs[1:]):
            current, ahead = ahead, start(following)
            yield job, current


def _load(candidate: Candidate) -> Network:
    with torch.random.fork_rng(devices=[]):  # building a network draws random weights before it loads its own
        return candidate.load()


def _run(
    job: _Job, load: _Loader | None, block: PixelBlock, rows: set[int], *, keys: dict[int, bytes], bars: Progress
) -> None:
    """Run one candidate over its missing rows of a block."""
    missing = [row for row in job.missing if row in rows]
    started = time.perf_counter()
    bars.candidate(job.candidate.name)
    if load is not None:
        try:
            with torch.inference_mode(False):  # the caller's would give weights that cannot be differentiated through
                _run_chunks(job, load().to(job.runtime.device), block, missing, keys=keys, bars=bars)
        except Exception as error:  # one candidate that fails is a row, never the end of the run
            logger.debug("%s failed", job.candidate.name, exc_info=True)
            job.failure = _reason(error)
    block.wait(missing)
    job.unreadable.update({row: block.unreadable[row] for row in missing if row in block.unreadable})
    job.seconds += time.perf_counter() - started


def _run_chunks(
    job: _Job, network: Network, block: PixelBlock, rows: Sequence[int], *, keys: dict[int, bytes], bars: Progress
) -> None:
    """Run rows chunk by chunk, keeping each as soon as it is done."""
    preprocess = job.candidate.preprocess
    for start in range(0, len(rows), _ROWS_PER_CHUNK):
        some = rows[start : start + _ROWS_PER_CHUNK]
        done = run_network(
            network, preprocess, block, some, parts=job.lacking, runtime=job.runtime, seen=bars.images_done
        )
        job.runtime = replace(job.runtime, batch_size=done.batch_size)
        if done.rows:
            digests = np.stack([np.frombuffer(keys[row], dtype=np.uint8) for row in done.rows])
            job.entry.append(Chunk(digests, done.parts, done.absent, network.n_parameters))


def _collect(job: _Job, mine: Sequence[int], digests: dict[int, bytes], team: Team) -> Features | CandidateError:
    """Read this process's rows back and exchange them with the others."""
    own = _Own(torch.empty(0, dtype=torch.int64), {}, {}, 0)
    if job.failure is None:
        try:
            own = _read_back(job, mine, digests)
        except Exception as error:  # rows that do not fit together, or are gone
            job.failure = _reason(error)
    job.entry.forget()
    failures = [failure for failure in team.gather(job.failure) if failure is not None]
    widths = team.gather({part: rows.shape[1] for part, rows in own.parts.items()})
    if failures:
        return CandidateError(failures[0])
    having = [some for some in widths if some]
    there = [part for part in job.parts if having and all(part in some for some in having)]
    if any(len({some[part] for some in having}) > 1 for part in there):
        return CandidateError(f"its features and source classes differ in number between the processes: {widths}.")
    all_rows, order = team.gather_rows(own.rows).sort()
    return Features(
        rows=all_rows,
        parts={part: _exchanged(own.parts.get(part), order, team) for part in there},
        absent={part: why for some in team.gather(own.absent) for part, why in some.items()},
        n_parameters=max(team.gather(own.n_parameters)),
        unreadable=dict(sorted((row, why) for some in team.gather(job.unreadable) for row, why in some.items())),
        seconds=max(team.gather(job.seconds)),
    )


def _read_back(job: _Job, mine: Sequence[int], digests: dict[int, bytes]) -> _Own:
    wanted = [digests[row] for row in mine]
    chunks = job.entry.read(wanted, job.parts)
    found = sorted(set(range(len(mine))).intersection(*(rows_with(chunks, wanted, part) for part in job.parts)))
    rows = torch.tensor(mine, dtype=torch.int64)[found]
    lost = set(mine).difference(rows.tolist(), job.unreadable)
    if lost:
        raise CandidateError(f"{len(lost)} of its rows vanished from the cache while the call ran. Call it again.")
    keys = [wanted[position] for position in found]
    parts = {part: assemble(chunks, keys, part) for part in job.parts}
    absent = {part: why for chunk in chunks for part, why in chunk.absent.items()}
    n_parameters = chunks[0].n_parameters if chunks else 0
    return _Own(rows, {part: held for part, held in parts.items() if held is not None}, absent, n_parameters)


def _exchanged(rows: Tensor | None, order: Tensor, team: Team) -> Tensor:
    """Every process's rows, in the order of the task."""
    own = torch.empty(0, 0) if rows is None else rows
    return own if team.size == 1 else team.gather_rows(own)[order]


def _reason(error: Exception) -> str:
    if isinstance(error, CandidateError):
        return str(error)
    if is_out_of_memory(error):
        return "out of memory even with one image a batch"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"
