"""The features of a whole data set under one candidate, on disk in row order, for clusters and single samples."""

import json
import logging
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from hf_zoosel.features.forward import Runtime
from hf_zoosel.features.half_pass import Tally
from hf_zoosel.features.passes import NotKeptError, bars_for, folder_of, provenance_of, raise_together
from hf_zoosel.features.row_pass import RowPass, Seen
from hf_zoosel.features.team import Team
from hf_zoosel.tasks.rows import SourceRows
from hf_zoosel.tasks.spans import disjoint, joined, pieces
from hf_zoosel.zoo import Candidate
from hf_zoosel.zoo.atomic import replacing
from hf_zoosel.zoo.provenance import Provenance

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceFeatures:
    """Features of every row that could be read, in files of some rows each; what one process is to work on.

    Attributes:
        folder: Where they are.
        is_kept: Whether they can be found again; otherwise ``discard`` them once they have been used.
        files: Those of this process, in row order. Each is a safetensors file with ``rows (n,)`` int64, ascending,
            and ``features (n, d)`` float32; ``rows-START-STOP.safetensors`` holds those between two row numbers.
        provenance: What they were computed from; ``provenance.notes`` says what was left out.
    """

    folder: Path
    is_kept: bool
    files: tuple[Path, ...]
    provenance: Provenance

    def blocks(self) -> Iterator[Tensor]:
        """This process's features ``(n, d)`` float32, file by file, the same at each call."""
        return (features for features in self._read("features") if len(features))

    def rows(self) -> Tensor:
        """Number in the split of each row of the blocks, ``(n_local,)`` int64."""
        return torch.cat([torch.zeros(0, dtype=torch.int64), *self._read("rows")])

    def discard(self, team: Team) -> None:
        """Remove what cannot be found again, once every process has done with it."""
        if not self.is_kept:
            team.gather(None)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, name: str) -> Iterator[Tensor]:
        from safetensors import safe_open

        for path in self.files:
            with safe_open(path, framework="pt") as file:
                yield file.get_tensor(name)


def source_features(
    candidate: Candidate,
    rows: SourceRows,
    *,
    runtime: Runtime,
    team: Team,
    folder: Path,
    progress: bool = True,
    chunk: int = 1024,
) -> SourceFeatures:
    """Write the features of every row, labelled or not, from one forward pass.

    Each chunk is a file of its own, written at once or not at all: a pass that was broken off goes on where it
    stopped, on any number of processes, and a finished one runs nothing. Memory as in ``source_statistics``, without
    the classes; ``4 d`` bytes a row on the disk.

    Args:
        candidate: Resolved, not loaded.
        rows: A data set.
        runtime: How the network runs.
        team: The processes that share the work, and then the files.
        folder: Where the features are kept; where they cannot be found again (``rows.identity`` is None, a
            preprocessing that cannot be hashed) in a new folder ``once-...`` in it, for the caller to ``discard``.
        progress: Whether to show progress bars (on the main process).
        chunk: Rows of a file.

    Raises:
        ValueError: If the data set cannot be read to its end, differs between the processes, or no image of it can
            be read.
        CandidateError: If the candidate fails.
        OSError: If the folder cannot be written.

    Reference:
        The features that are clustered where there are no labels in "Improved Fine-Tuning by Better Leveraging
        Pre-Training Data", arXiv:2111.12292.
    """
    if chunk < 1:
        raise ValueError(f"`chunk` must be at least 1, got {chunk}.")
    kept_in = folder_of(folder, candidate, rows, runtime=runtime, team=team, options={"every row": True})
    shards = _Shards(kept_in or folder / f"once-{team.from_main(secrets.token_hex(8))}")
    done = joined(span for spans in _taken(shards, team).values() for span in spans)
    n_rows = team.from_main(shards.n_rows) if rows.n_rows is None else rows.n_rows
    failure: Exception | None = None
    try:
        spans = islice(pieces(done, chunk, n_rows), team.rank, None, team.size)
        with bars_for(rows, done, team, progress) as bars:
            one_pass = RowPass(candidate, runtime, labelled=False)
            with closing(one_pass.over(rows.read(spans, None), bars)) as all_seen:
                for seen in all_seen:
                    shards.write(seen, one_pass.weights)
    except Exception as error:
        failure = error
    raise_together(failure, team, is_kept=kept_in is not None)
    return _shared_out(shards, candidate, rows, runtime=runtime, team=team, is_kept=kept_in is not None)


class _Shards:
    """The files of one pass, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, seen: Seen, weights: str) -> None:
        """Keep some rows."""
        from safetensors.torch import save_file

        tally = Tally()
        tally.add(seen)
        name = f"rows-{seen.span.start:012d}-{seen.span.stop:012d}.safetensors"
        tensors = {"rows": seen.rows, "features": seen.features}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / name) as path:
                save_file(tensors, path, {"tally": tally.to_json(), "weights": weights})
        except Exception as error:  # OSError, and what safetensors makes of one
            raise NotKeptError(
                f"features cannot be kept in {self.folder} ({type(error).__name__}: {error})"
            ) from error

    @property
    def n_rows(self) -> int | None:
        """Rows of the split, once they were read to the end."""
        path = self.folder / "n_rows.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def end(self, n_rows: int) -> None:
        """Take note of where the rows end."""
        with replacing(self.folder / "n_rows.json") as path:
            path.write_text(json.dumps(n_rows))

    def spans(self) -> dict[str, Sequence[range]]:
        """The sound files there are, and their rows."""
        found: dict[str, Sequence[range]] = {}
        for path in sorted(self.folder.glob("rows-*.safetensors")):
            try:
                found[path.name] = self.metadata(path.name)[0].spans
            except Exception as error:  # of safetensors, JSON or the file system
                logger.warning("Source features %s are damaged (%s); computing them again.", path, error)
        return found

    def metadata(self, name: str) -> tuple[Tally, str]:
        """Which rows a file holds, and by which weights."""
        from safetensors import safe_open

        with safe_open(self.folder / name, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata()
            return Tally.from_json(metadata["tally"]), metadata["weights"]


def _taken(shards: _Shards, team: Team) -> dict[str, Sequence[range]]:
    """The files of all processes that hold every row once."""
    return disjoint({name: spans for some in team.gather(shards.spans()) for name, spans in some.items()}.items())


def _shared_out(
    shards: _Shards, candidate: Candidate, rows: SourceRows, *, runtime: Runtime, team: Team, is_kept: bool
) -> SourceFeatures:
    """The files in row order, each on one of the processes that see it."""
    everywhere = team.gather(set(shards.spans()))
    own, tally, weights = [], Tally(), ""
    for number, name in enumerate(sorted(_taken(shards, team))):
        seeing = [rank for rank, names in enumerate(everywhere) if name in names]
        if seeing[number % len(seeing)] == team.rank:
            own.append(shards.folder / name)
            of_file, weights = shards.metadata(name)
            tally.merge(of_file)
    whole = Tally()
    for some in team.gather(tally):
        whole.merge(some)
    provenance = provenance_of(
        candidate, rows, runtime, tally=whole, weights=next(filter(None, team.gather(weights)), "")
    )
    if whole.n_unreadable == provenance.n_rows:
        raise ValueError(f"`dataset` must have images that can be read, got {provenance.notes[0]}")
    if team.is_main:
        shards.end(provenance.n_rows)
    return SourceFeatures(shards.folder, is_kept, tuple(own), provenance)
