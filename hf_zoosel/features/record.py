"""What one forward pass over a task leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """One candidate's view of a task.

    Attributes:
        rows: Positions in the task that could be read, ascending, ``(n_samples,)`` int64.
        features: Input of the classifier, ``(n_samples, n_features)`` float32.
        source_probs: Softmax of the source head, ``(n_samples, n_source_classes)`` float32, or None
            without a head.
        n_parameters: Parameters of the whole network.
        unreadable: Why the other positions could not be read.
        seconds: Wall time this call spent on loading and running it; near 0 when everything was cached.
    """

    rows: Tensor
    features: Tensor
    source_probs: Tensor | None
    n_parameters: int
    unreadable: Mapping[int, str]
    seconds: float
