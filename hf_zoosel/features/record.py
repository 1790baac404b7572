"""What one forward pass over a task leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """One candidate's view of a task.

    Attributes:
        rows: Positions in the task that could be read, ascending, ``(n_samples,)`` int64.
        parts: What was asked for, each ``(n_samples, width)`` float32: ``features`` (input of the classifier),
            ``source_logits`` (output of the source head), and what else a metric needs.
        absent: Parts the candidate cannot give, and why.
        n_parameters: Parameters of the whole network.
        unreadable: Why the other positions could not be read.
        seconds: Wall time this call spent on loading and running it; near 0 when everything was cached.
    """

    rows: Tensor
    parts: Mapping[str, Tensor]
    absent: Mapping[str, str]
    n_parameters: int
    unreadable: Mapping[int, str]
    seconds: float

    @property
    def features(self) -> Tensor:
        """Input of the classifier, ``(n_samples, n_features)``."""
        return self.parts["features"]

    @property
    def source_probs(self) -> Tensor | None:
        """Softmax of the source head, ``(n_samples, n_source_classes)``, or None without a head."""
        logits = self.parts.get("source_logits")
        return None if logits is None else logits.softmax(dim=1)
