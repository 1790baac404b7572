"""What every candidate is reduced to: a name, a revision, its preprocessing, and a way to load its network."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hf_zoosel.zoo.network import Network
from hf_zoosel.zoo.preprocess import Preprocess
from hf_zoosel.zoo.source_stats import SourceStats


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that can be ranked, resolved but not yet loaded.

    Attributes:
        name: The name it has in the ranking, unique within one call.
        revision: What its weights are: a Hub commit, or the digest of local weights. Together with
            ``architecture`` it decides whether cached features may be reused.
        architecture: What the network is built from (library, architecture, arguments), as text.
        preprocess: Its own preprocessing.
        load: Builds the network with its weights, on the CPU, in evaluation mode.
        notes: What a person should know about it.
        source_accuracy: Top-1 accuracy on the data it was trained on, in [0, 1], as published with it.
        source_stats: Reads the statistics of its source classes published with it; None where there are none.
        class_names: Names of the classes of its head, in the head's order; None where they are not known.
        origin: The Hub id of what its weights are, to be cited as the base of a fine-tuned model; None if unknown.
        processor: What ``preprocess`` was made from: timm's data configuration (a dict), a transformers image
            processor, or a function of a person's own.
        body_revision: What its weights are apart from its classifier, where that is known: a head drawn at random is
            another one each time it is made, and may be thrown away.
    """

    name: str
    revision: str
    architecture: str
    preprocess: Preprocess
    load: Callable[[], Network]
    notes: tuple[str, ...] = ()
    source_accuracy: float | None = None
    source_stats: Callable[[], SourceStats] | None = None
    class_names: tuple[str, ...] | None = field(default=None, repr=False)
    origin: str | None = None
    processor: Any = field(default=None, repr=False, compare=False)  # dicts cannot be hashed
    body_revision: str | None = None

    def named(self, name: str) -> "Candidate":
        """The same candidate under another name."""
        return replace(self, name=name)
