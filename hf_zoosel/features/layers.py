"""Finding a layer by watching one image go through: the last one that sees positions, not pooled vectors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class AbsentPartError(Exception):
    """A network cannot give a part; the message says why."""


def is_positional(layer: nn.Module, output: Any) -> bool:
    """Whether a layer is a convolution or a linear layer with more than one position an image in its output."""
    if not isinstance(output, Tensor) or output.ndim < 3:
        return False
    if isinstance(layer, nn.Conv2d):
        return output.shape[2:].numel() > 1
    return isinstance(layer, nn.Linear) and output.shape[1:-1].numel() > 1


def is_map(output: Any) -> bool:
    """Whether a layer gives feature maps ``(n, channels, height, width)`` with more than one position."""
    if not isinstance(output, Tensor) or output.ndim != 4 or not output.is_floating_point():
        return False
    return output.shape[2:].numel() > 1 and output.numel() > 0


@contextmanager
def hooked(modules: list[nn.Module], hook: Any) -> Iterator[None]:
    """A forward hook on each module, for a while."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
