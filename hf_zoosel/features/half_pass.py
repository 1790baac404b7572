"""What a pass over a data set has found so far, on one process, and its file."""

import json
import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_zoosel.features.class_sums import ClassSums, KeptSample
from hf_zoosel.features.row_pass import Seen
from hf_zoosel.features.team import Team
from hf_zoosel.tasks.labels import LabelCoder, LabelValue
from hf_zoosel.tasks.spans import disjoint, joined
from hf_zoosel.zoo.atomic import replacing

logger = logging.getLogger(__name__)
_LISTED = 10  # unreadable rows whose reason is kept
_SHARE = 50  # a save costs at most one part in as many of the time


@dataclass
class Tally:
    """Rows looked at, and those left out.

    Attributes:
        spans: What was looked at.
        n_unlabelled: Rows without a label.
        n_unreadable: Rows whose image could not be read.
        unreadable: Row and reason of the first of them.
    """

    spans: list[range] = field(default_factory=list)
    n_unlabelled: int = 0
    n_unreadable: int = 0
    unreadable: list[tuple[int, str]] = field(default_factory=list)

    def add(self, seen: Seen) -> None:
        """Count some rows."""
        self.merge(Tally([seen.span], seen.n_unlabelled, len(seen.unreadable), list(seen.unreadable.items())))

    def merge(self, other: "Tally") -> None:
        """Count another's rows."""
        self.spans = joined([*self.spans, *other.spans])
        self.n_unlabelled += other.n_unlabelled
        self.n_unreadable += other.n_unreadable
        self.unreadable = sorted([*self.unreadable, *other.unreadable])[:_LISTED]

    def to_json(self) -> str:
        """As text."""
        return json.dumps({**vars(self), "spans": _bounds(self.spans)})

    @staticmethod
    def from_json(text: str) -> "Tally":
        """What ``to_json`` wrote."""
        fields = json.loads(text)
        spans = [range(start, stop) for start, stop in fields.pop("spans")]
        unreadable = [(row, why) for row, why in fields.pop("unreadable")]
        return Tally(spans, unreadable=unreadable, **fields)


@dataclass
class HalfPass:
    """What one process has found so far.

    Attributes:
        coder: Numbers the classes of ``sums`` and ``kept``, in the order this process met them.
        sums: Of the rows looked at.
        kept: A sample of them.
        tally: Which rows, and which were left out.
        weights: Digest of the network's weights, once it was loaded by anyone.
    """

    coder: LabelCoder
    kept: KeptSample
    sums: ClassSums = field(default_factory=ClassSums)
    tally: Tally = field(default_factory=Tally)
    weights: str = ""

    def add(self, seen: Seen) -> None:
        """Take some rows."""
        self.sums.add(seen.features, seen.codes)
        self.kept.add(seen.features, seen.codes, seen.rows)
        self.tally.add(seen)

    def merge(self, other: "HalfPass") -> None:
        """Take what another process, or an earlier call, has found."""
        places = [self.coder.code(value) for value in other.coder.values]
        self.sums.merge(other.sums, places)
        self.kept.merge(other.kept, places)
        self.tally.merge(other.tally)
        self.weights = self.weights or other.weights

    def write(self, path: Path) -> None:
        """Put it into a file, at once or not at all."""
        from safetensors.torch import save_file

        tensors = {"counts": self.sums.counts, "means": self.sums.means, "squares": self.sums.squares}
        sample = {f"kept {name}": getattr(self.kept, name) for name in ("features", "codes", "rows", "priorities")}
        metadata = {
            "values": json.dumps(self.coder.values),
            "tally": self.tally.to_json(),
            "weights": self.weights,
        }
        with replacing(path) as temporary:
            save_file({**tensors, **sample}, temporary, metadata)

    def read(self, path: Path) -> None:
        """Take what a file holds."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        coder = LabelCoder(self.coder.column, self.coder.is_class_label)
        for value in _values(metadata):
            coder.code(value)
        sample = {name.removeprefix("kept "): t for name, t in tensors.items() if name.startswith("kept ")}
        kept = KeptSample(self.kept.per_class, self.kept.seed, **sample)
        sums = ClassSums.of(tensors["counts"], tensors["means"], tensors["squares"])
        self.merge(HalfPass(coder, kept, sums, Tally.from_json(metadata["tally"]), metadata["weights"]))


class HalfPassFiles:
    """The files in which the processes keep what they have found; None as ``folder`` keeps nothing.

    Every process writes a file of its own, under a new name in every call, and removes those it has taken in only
    afterwards. Where a call was killed in between, a row is in two files: the larger one counts.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._own = None if folder is None else folder / f"half-{secrets.token_hex(8)}.safetensors"
        self._taken_in: list[Path] = []
        self._saved_at, self._save_seconds = 0.0, 0.0

    def take_in(self, half: HalfPass, team: Team) -> list[range]:
        """Read what earlier calls have left, each file on one process.

        Returns:
            The rows that are done, on any process.
        """
        seen = dict(self._spans())
        everywhere = team.gather(seen)
        taken = disjoint({name: spans for some in everywhere for name, spans in some.items()}.items())
        for name in taken:
            if next(rank for rank, some in enumerate(everywhere) if name in some) == team.rank:
                assert self._folder is not None
                half.read(self._folder / name)
                self._taken_in.append(self._folder / name)
        return joined(span for spans in taken.values() for span in spans)

    def save_now_and_then(self, half: HalfPass) -> None:
        """Save if it has been long enough ago, for what a save takes."""
        if time.monotonic() - self._saved_at > _SHARE * self._save_seconds:
            self.save(half)

    def save(self, half: HalfPass) -> None:
        """Save, if there is a folder; one that cannot be written is said once."""
        if self._own is None or not half.tally.spans:
            return
        started = time.monotonic()
        try:
            self._own.parent.mkdir(parents=True, exist_ok=True)
            half.write(self._own)
            for path in self._taken_in:
                path.unlink(missing_ok=True)
            self._taken_in.clear()
        except OSError as error:
            logger.warning("The half-computed pass cannot be kept in %s (%s); going on without.", self._folder, error)
            self._own = None
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - started

    def remove(self) -> None:
        """Remove what every process has left, once the pass is complete."""
        for path in [] if self._folder is None else self._folder.glob("*half-*"):
            path.unlink(missing_ok=True)

    def _spans(self) -> Iterator[tuple[str, Sequence[range]]]:
        from safetensors import SafetensorError, safe_open

        for path in [] if self._folder is None else sorted(self._folder.glob("half-*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    yield path.name, Tally.from_json(file.metadata()["tally"]).spans
            except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
                logger.warning("The half-computed pass %s is damaged (%s); computing it again.", path, error)


def _bounds(spans: Sequence[range]) -> list[tuple[int, int]]:
    return [(span.start, span.stop) for span in spans]


def _values(metadata: Mapping[str, str]) -> list[LabelValue]:
    return list(json.loads(metadata["values"]))
