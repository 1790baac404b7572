"""Class means, counts and variances of a whole data set under one candidate, in one pass that can be broken off."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch

from hf_zoosel.features.class_sums import KeptSample, sum_over
from hf_zoosel.features.forward import Runtime
from hf_zoosel.features.half_pass import HalfPass, HalfPassFiles, Tally
from hf_zoosel.features.passes import bars_for, folder_of, provenance_of, raise_together
from hf_zoosel.features.progress import Progress
from hf_zoosel.features.row_pass import RowPass
from hf_zoosel.features.team import Team
from hf_zoosel.tasks.labels import LabelCoder, number_classes
from hf_zoosel.tasks.rows import Chunk, SourceRows
from hf_zoosel.tasks.spans import n_in, pieces
from hf_zoosel.zoo import Candidate, CandidateError, SourceStats
from hf_zoosel.zoo.source_stats import FILE_NAME

logger = logging.getLogger(__name__)


def source_statistics(
    candidate: Candidate,
    rows: SourceRows,
    *,
    runtime: Runtime,
    team: Team,
    folder: Path | None,
    progress: bool = True,
    chunk: int = 1024,
    keep: int = 0,
    seed: int = 0,
) -> SourceStats:
    """Count, average and take the variance of every class's features, from one forward pass over all rows.

    A finished pass is kept in ``folder`` and read from there; one that was broken off, by an error or by a kill, goes
    on where it stopped, on any number of processes, to the same result. What is kept is found again by candidate,
    preprocessing, compute type, versions and ``rows.identity``; where one of these cannot be told nothing is kept.

    This holds ``runtime.memory`` bytes of pixels, a chunk of features in float64, of a stream one chunk of encoded
    images (three beside a GPU), and ``16 d`` bytes a class (48 while it makes room for more classes, another 32 at
    the end on several processes), with ``keep`` another ``4 d keep`` a class. Images are decoded by all processes in
    turn, chunk by chunk; a stream is read by each of them to its end.

    Args:
        candidate: Resolved, not loaded.
        rows: A labelled data set.
        runtime: How the network runs.
        team: The processes that share the work; every one gets the result.
        folder: Where passes are kept, one folder each; None to keep nothing.
        progress: Whether to show progress bars (on the main process).
        chunk: Rows a process takes at a time: what a kill can lose, at least. Neither this nor the number of
            processes moves the result by more than 1e-12 of it, for equal features; a network's features may
            depend on the batch they were computed in by some 1e-7.
        keep: Rows of each class whose features are kept as a sample: those ``load_task`` would draw of the readable
            ones.
        seed: Of that draw; the sample changes with it, the statistics do not.

    Returns:
        Statistics of the classes with a readable image, in the order of their labels, with their provenance;
        ``provenance.notes`` says what was left out.

    Raises:
        ValueError: If there are no labels, none with a readable image, the data set cannot be read to its end, or
            differs between the processes.
        CandidateError: If the candidate fails.

    Reference:
        The source class means of "Improved Fine-Tuning by Better Leveraging Pre-Training Data", arXiv:2111.12292.
    """
    if chunk < 1 or keep < 0:
        raise ValueError(f"`chunk` must be at least 1 and `keep` at least 0, got {chunk} and {keep}.")
    coder = rows.new_coder()
    if coder is None:
        raise ValueError(
            "`rows` must have labels for statistics of classes, got none. "
            "Pass `label_column=`, or cluster the features."
        )
    options = {"keep": keep, "seed": seed if keep else None}
    kept_in = folder_of(folder, candidate, rows, runtime=runtime, team=team, options=options)
    finished = team.from_main(_finished(kept_in) if team.is_main else None)
    if finished is not None:
        return finished
    half, files = HalfPass(coder, KeptSample(keep, seed)), HalfPassFiles(kept_in)
    done = files.take_in(half, team)
    spans = islice(pieces(done, chunk, rows.n_rows), team.rank, None, team.size)
    failure: Exception | None = None
    needs_saving = True
    try:
        with bars_for(rows, done, team, progress) as bars:
            _run(RowPass(candidate, runtime, labelled=True), rows.read(spans, coder), half, files, bars)
        needs_saving = team.size > 1  # the others may fail
    except Exception as error:
        failure = error
    finally:  # after Ctrl-C too
        if needs_saving:
            files.save(half)
    raise_together(failure, team, is_kept=kept_in is not None)
    statistics = _over_all(half, candidate, rows, runtime, team)
    if team.is_main and kept_in is not None:
        _keep(statistics, kept_in)
    team.gather(None)  # no process removes its part before the whole is written
    files.remove()
    return statistics


def _run(one_pass: RowPass, chunks: Iterator[Chunk], half: HalfPass, files: HalfPassFiles, bars: Progress) -> None:
    """Take all rows, saving now and then."""
    with closing(one_pass.over(chunks, bars)) as all_seen:
        for seen in all_seen:
            half.add(seen)
            half.weights = half.weights or one_pass.weights
            files.save_now_and_then(half)


def _over_all(half: HalfPass, candidate: Candidate, rows: SourceRows, runtime: Runtime, team: Team) -> SourceStats:
    """The statistics of all processes' rows, on each of them."""
    coder, tally = LabelCoder(half.coder.column, half.coder.is_class_label), Tally()
    for values in team.gather(half.coder.values):
        for value in values:
            coder.code(value)
    places = [coder.code(value) for value in half.coder.values]
    sums = sum_over(team, half.sums, places)
    kept, keep_any = KeptSample(half.kept.per_class, half.kept.seed), half.kept.per_class > 0
    for some, theirs, looked_at in team.gather((half.kept, places, half.tally)):
        kept.merge(some, theirs)
        tally.merge(looked_at)
    there = sums.counts.nonzero()[:, 0]
    if not len(there):
        raise ValueError(_nothing_left(tally))
    numbers, names = number_classes(there.numpy(), coder.values, rows.class_names)
    order = there[torch.from_numpy(numbers).argsort()]
    new_number = torch.zeros(len(coder.values), dtype=torch.int64)
    new_number[there] = torch.from_numpy(numbers)
    empty = _empty_classes(coder, there.tolist(), rows.class_names)
    weights = next(filter(None, team.gather(half.weights)), "")
    by_row = kept.rows.argsort()
    return SourceStats(
        means=sums.means[order],
        counts=sums.counts[order],
        features=kept.features[by_row] if keep_any else None,
        labels=new_number[kept.codes[by_row]] if keep_any else None,
        class_names=names,
        variances=sums.squares[order] / sums.counts[order, None],
        provenance=provenance_of(candidate, rows, runtime, tally=tally, weights=weights, empty=empty),
    )


def _nothing_left(tally: Tally) -> str:
    reason = f" (row {tally.unreadable[0][0]}: {tally.unreadable[0][1]})" if tally.unreadable else ""
    return (
        f"`dataset` must have labelled images that can be read, got {n_in(tally.spans)} rows of which "
        f"{tally.n_unlabelled} have no label and {tally.n_unreadable} cannot be read{reason}."
    )


def _empty_classes(coder: LabelCoder, counted: Sequence[int], declared: Sequence[str] | None) -> list[str]:
    """Names of classes that are declared, or have rows, but no image that could be read."""
    with_images = {coder.values[code] for code in counted}
    if declared is not None:
        return [name for value, name in enumerate(declared) if value not in with_images]
    return [str(value) for value in sorted(set(coder.values) - with_images)]


def _finished(folder: Path | None) -> SourceStats | None:
    if folder is None or not (folder / FILE_NAME).is_file():
        return None
    try:
        return SourceStats.load(folder / FILE_NAME)
    except CandidateError as error:
        logger.warning("Statistics kept in %s are damaged: %s Computing them again.", folder, error)
        return None


def _keep(statistics: SourceStats, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        statistics.save(folder / FILE_NAME)
    except OSError as error:
        logger.warning("The statistics cannot be kept in %s (%s).", folder, error)
