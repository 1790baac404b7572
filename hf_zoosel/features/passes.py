"""What passes over a whole data set have in common: where they are kept, how they fail, what they come from."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from hf_zoosel.features.forward import Runtime
from hf_zoosel.features.half_pass import Tally
from hf_zoosel.features.progress import Progress
from hf_zoosel.features.row_pass import SourceReadError
from hf_zoosel.features.store import FeatureStore
from hf_zoosel.features.team import Team
from hf_zoosel.tasks.rows import SourceRows
from hf_zoosel.tasks.spans import n_in
from hf_zoosel.zoo import Candidate, CandidateError
from hf_zoosel.zoo.errors import one_line
from hf_zoosel.zoo.provenance import LAYER, Provenance

_LAYOUT = "1"
_LIBRARIES = ("hf-zoosel", "torch", "torchvision", "timm", "transformers", "datasets", "pillow")


def folder_of(
    folder: Path | None,
    candidate: Candidate,
    rows: SourceRows,
    *,
    runtime: Runtime,
    team: Team,
    options: Mapping[str, object],
) -> Path | None:
    """Where one pass is kept; None where it cannot be found again.

    Raises:
        ValueError: If the processes do not look at the same rows.
    """
    if len(set(team.gather((rows.content, rows.n_rows, rows.columns)))) > 1:
        raise ValueError(
            "`dataset` must hold the same rows in the same order on every process, got different ones. "
            "Shuffle it with a seed, and do not shard it."
        )
    identities = team.gather(None if rows.identity is None else json.dumps(rows.identity, sort_keys=True))
    if folder is None or identities[0] is None or len(set(identities)) > 1 or not candidate.preprocess.cacheable:
        return None
    entry = FeatureStore(folder).entry(candidate, runtime.computed_in)
    identity = [_LAYOUT, LAYER, entry.identity, identities[0], options]
    key = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()
    return folder / f"source-v{_LAYOUT}" / key


class NotKeptError(OSError):
    """What was computed cannot be written down."""


def raise_together(failure: Exception | None, team: Team, *, is_kept: bool) -> None:
    """Raise on every process what failed on any.

    Raises:
        ValueError: If the data set failed.
        OSError: If the folder did.
        CandidateError: If the candidate failed.
    """
    kind = next((one for one in (SourceReadError, NotKeptError) if isinstance(failure, one)), CandidateError)
    own = None if failure is None else (kind, _text(failure))
    failures = [one for one in team.gather(own) if one is not None]
    if not failures:
        return
    raised, why = failures[0]
    if raised is CandidateError:
        raise CandidateError(why) from failure
    if raised is NotKeptError:
        remedy = "Make room there, or name another folder; what is kept is not computed again."
    else:
        remedy = "What has been computed is kept: call again to go on." if is_kept else "Nothing computed is kept."
    raise raised(f"{why.rstrip('.')}. {remedy}") from failure


def _text(failure: Exception) -> str:
    known = isinstance(failure, SourceReadError | NotKeptError | CandidateError)
    return str(failure) if known else f"{type(failure).__name__}: {one_line(failure)}"


def provenance_of(
    candidate: Candidate, rows: SourceRows, runtime: Runtime, *, tally: Tally, weights: str, empty: Sequence[str] = ()
) -> Provenance:
    """What a complete pass was made from.

    Raises:
        ValueError: If rows are missing among those looked at.
    """
    n_rows = n_in(tally.spans)
    if tally.spans != [range(n_rows)] or rows.n_rows not in (None, n_rows):
        raise ValueError(
            f"`dataset` must stay as it is while it is read, got its rows {tally.spans} only. Call again."
        )
    return Provenance(
        revision=candidate.revision,
        architecture=candidate.architecture,
        preprocess=candidate.preprocess.identity if candidate.preprocess.cacheable else "",
        weights=weights,
        layer=LAYER,
        dtype=str(runtime.dtype).removeprefix("torch."),
        dataset=rows.name,
        split=rows.split,
        fingerprint=rows.fingerprint,
        n_rows=n_rows,
        n_unlabelled=tally.n_unlabelled,
        n_unreadable=tally.n_unreadable,
        unreadable=tuple(tally.unreadable),
        empty_classes=tuple(empty),
        versions={library: version(library) for library in _LIBRARIES},
    )


def bars_for(rows: SourceRows, done: Sequence[range], team: Team, progress: bool) -> Progress:
    """Bars for this process's share of what is left."""
    left = None if rows.n_rows is None else -(-(rows.n_rows - n_in(done)) // team.size)
    return Progress(1, left, progress and team.is_main)
