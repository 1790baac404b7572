"""What can be seen in a forward pass beside features and logits: one table, part by part."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Protocol

from torch import Tensor, nn

from hf_zoosel.features.gradients import GradientSketch
from hf_zoosel.features.maps import MapStatistics
from hf_zoosel.zoo import Output

BASE_PARTS = ("features", "source_logits")


class Observer(Protocol):
    """Watches a module during a forward pass and turns what it saw into one row an image.

    ``needs_gradients`` says whether part of the pass must be recorded for back-propagation. The first
    batch an observer sees holds one image: there it looks for the layer to watch.
    """

    needs_gradients: bool

    def watching(self, module: nn.Module) -> AbstractContextManager[None]:
        """Hooks, for the duration of one forward pass."""
        ...

    def rows(self, output: Output) -> Tensor:
        """What was seen, ``(n, width)``.

        Raises:
            AbsentPartError: If this network has nothing to see.
        """
        ...


OBSERVERS: Mapping[str, Callable[[], Observer]] = MappingProxyType(
    {
        "map_statistics": MapStatistics,
        "gradients": lambda: GradientSketch("features"),
        "gradients_logits": lambda: GradientSketch("logits"),
        "gradients_random": lambda: GradientSketch("random"),
    }
)


def observers_of(parts: Collection[str]) -> dict[str, Observer]:
    """New observers, for one candidate, of the parts that need one."""
    return {part: make() for part, make in OBSERVERS.items() if part in parts}
