"""What statistics of a data set were computed from: which checkpoint, which layer, which data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from hf_zoosel.zoo.errors import one_line

if TYPE_CHECKING:
    from hf_zoosel.zoo.candidate import Candidate

LAYER = "features"  # what every candidate gives: the input of its classifier
_LISTED = 5  # names written out in a note


@dataclass(frozen=True)
class Provenance:
    """Where statistics, or features, of a data set come from.

    Attributes:
        revision: Of the candidate.
        architecture: Of the candidate.
        preprocess: Identity of its preprocessing; empty if it has none that lasts.
        weights: Digest of the network's parameters and buffers, which stays when a checkpoint moves.
        layer: Which part of the network's output.
        dtype: Compute type of the forward passes.
        dataset: Name of the data set.
        split: Its split, empty if it has none.
        fingerprint: Fingerprint of the data set, or digest of the stream; None if unknown.
        n_rows: Rows of the split.
        n_unlabelled: Rows left out for want of a label.
        n_unreadable: Rows left out because their image could not be read.
        unreadable: Row and reason of the first of them.
        empty_classes: Names of the classes without a single image that could be read.
        versions: Of the libraries.
    """

    revision: str
    architecture: str
    preprocess: str
    weights: str
    layer: str
    dtype: str
    dataset: str
    split: str
    fingerprint: str | None
    n_rows: int
    n_unlabelled: int = 0
    n_unreadable: int = 0
    unreadable: Sequence[tuple[int, str]] = ()
    empty_classes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know, one sentence each."""
        return self.notes_on("source")

    def notes_on(self, what: str) -> tuple[str, ...]:
        """The notes, of what the data set is here: "source" or "target"."""
        notes = []
        if self.n_unlabelled:
            notes.append(f"{self.n_unlabelled} of {self.n_rows} {what} rows have no label and were left out.")
        if self.n_unreadable:
            row, why = self.unreadable[0]
            notes.append(
                f"{self.n_unreadable} of {self.n_rows} {what} images could not be read and were left out "
                f"(row {row}: {why})."
            )
        if self.empty_classes:
            listed = ", ".join(self.empty_classes[:_LISTED]) + (", ..." if len(self.empty_classes) > _LISTED else ".")
            n = len(self.empty_classes)
            notes.append(f"{n} {what} {'class has' if n == 1 else 'classes have'} no image that can be read: {listed}")
        return tuple(notes)

    def check_matches(self, candidate: "Candidate") -> None:
        """Refuse what comes from another checkpoint, layer or preprocessing.

        Raises:
            ValueError: If it does, or the candidate's weights cannot be loaded to be compared.
        """
        if self.layer != LAYER:
            raise ValueError(self._not_of(candidate, f"are of its layer {self.layer!r}, not {LAYER!r}"))
        if self.architecture != candidate.architecture:
            raise ValueError(self._not_of(candidate, f"are of another network, {self.architecture!r}"))
        if self.preprocess and candidate.preprocess.cacheable and self.preprocess != candidate.preprocess.identity:
            raise ValueError(self._not_of(candidate, "were computed with another preprocessing"))
        if self.revision != candidate.revision and self.weights != _weights_of(candidate):
            raise ValueError(self._not_of(candidate, f"are of another checkpoint, {self.revision}"))

    def _not_of(self, candidate: "Candidate", how: str) -> str:
        return (
            f"`source` must be statistics of {candidate.name!r} at revision {candidate.revision}, got some of "
            f"{self.dataset!r} that {how}. Compute them again under this candidate."
        )

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Provenance":
        """What ``to_json`` wrote; fields of later versions are passed over.

        Raises:
            ValueError: If it is no JSON.
            TypeError: If it is no JSON object, or a field is missing.
        """
        known = Provenance.__dataclass_fields__
        fields = {name: value for name, value in dict(json.loads(text)).items() if name in known}
        fields["unreadable"] = tuple((int(row), str(why)) for row, why in fields.get("unreadable", ()))
        fields["empty_classes"] = tuple(fields.get("empty_classes", ()))
        return Provenance(**fields)


def _weights_of(candidate: "Candidate") -> str:
    try:
        return candidate.load().weights_digest()
    except Exception as error:  # in whatever way a checkpoint fails to load
        raise ValueError(
            f"`source` must be statistics of {candidate.name!r}, whose weights cannot be loaded to be compared "
            f"({type(error).__name__}: {one_line(error)})."
        ) from None
