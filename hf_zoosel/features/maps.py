"""The last feature maps before pooling, reduced to what the feature metrics ask of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hf_zoosel.features.layers import AbsentPartError, hooked, is_map, is_positional
from hf_zoosel.metrics.feature_metrics import map_statistics
from hf_zoosel.zoo import Output


class MapStatistics:
    """Sparsity of the last feature maps ``(n, channels, height, width)``, two numbers an image.

    The maps are the last four-dimensional output of any module (after activation, before pooling) that
    comes after the last convolution, or is its output; found on the first image. Networks without maps, such as
    plain vision transformers, have none.
    """

    needs_gradients = False

    def __init__(self) -> None:
        self._source: nn.Module | None = None
        self._seen: Tensor | None = None

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Hooks, for the duration of one forward pass."""
        self._seen = None
        with hooked([self._source] if self._source is not None else list(module.modules()), self._look):
            yield

    def rows(self, output: Output) -> Tensor:
        """Statistics of the maps seen, ``(n, 2)``."""
        if self._seen is None:
            raise AbsentPartError("it has no feature maps before its pooling")
        return self._seen

    def _look(self, layer: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        if is_map(output):
            self._source, self._seen = layer, map_statistics(output.detach())
        elif is_positional(layer, output):  # tokens after the maps: these were a patch embedding
            self._source, self._seen = None, None
