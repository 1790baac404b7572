"""Per-sample gradients of one layer, sketched: what label-gradient correlation looks at.

Only the layers behind the watched one are recorded for back-propagation, so that a pass with gradients
costs little more than one without.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from hf_zoosel.features.layers import AbsentPartError, hooked, is_positional
from hf_zoosel.zoo import Output

GradientOf = Literal["features", "logits", "random"]
SKETCH_SIZE = 10_000
_AT_ONCE = 2**26  # numbers of unsketched gradients held at a time: 256 MB


class GradientSketch:
    """Gradients of a scalar output with respect to the weight of the last layer that sees positions.

    In a convolutional network that layer is the last convolution, in a transformer the output projection
    of the last block. The gradient of each image is projected to 10,000 numbers by a seeded sparse random
    projection that keeps inner products in expectation (their standard deviation is about 1 % of the product
    of the norms); one that is no longer is kept as it is.

    Args:
        of: The scalar: the mean of the features, the sum of the source logits, or a seeded random linear
            head on the features.
        seed: Of the projection and the random head.
    """

    needs_gradients = True

    def __init__(self, of: GradientOf, *, seed: int = 0) -> None:
        if of not in get_args(GradientOf):
            raise ValueError(f"`of` must be one of {list(get_args(GradientOf))}, got {of!r}.")
        self._of, self._seed = of, seed
        self._layer: nn.Module | None = None
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        self._sketch: _Sketch | None = None

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Hooks, for the duration of one forward pass."""
        self._input = self._output = None
        recording = torch.is_grad_enabled()
        try:
            with hooked([self._layer] if self._layer is not None else _weighted(module), self._cut):
                yield
        finally:
            torch.set_grad_enabled(recording)

    def rows(self, output: Output) -> Tensor:
        """Sketched gradients, ``(n, 10,000)`` or less."""
        inputs, signals = self.activations_and_signals(output)
        assert self._layer is not None  # found, or the line above has raised
        width = cast(Tensor, self._layer.weight).numel()
        if self._sketch is None:
            self._sketch = _Sketch(width, self._seed, inputs.device)
        step = max(1, _AT_ONCE // width)
        pairs = zip(inputs.split(step), signals.split(step), strict=True)
        return torch.cat([self._sketch(weight_gradients(self._layer, *some)) for some in pairs])

    def activations_and_signals(self, output: Output) -> tuple[Tensor, Tensor]:
        """The layer's input and the gradient of the scalar with respect to its output, image by image."""
        if self._input is None or self._output is None:
            raise AbsentPartError("it has no convolution or linear layer that sees positions")
        with torch.enable_grad():
            scalar = self._scalar(output)
        if not scalar.requires_grad:
            raise AbsentPartError("its output cannot be differentiated")
        (signals,) = torch.autograd.grad(scalar, self._output, retain_graph=True)
        return self._input.float(), signals.float()

    def _scalar(self, output: Output) -> Tensor:
        if self._of == "logits":
            if output.logits is None:
                raise AbsentPartError("it has no source head")
            return output.logits.sum()
        if self._of == "features":
            return output.features.mean(dim=1).sum()
        generator = torch.Generator().manual_seed(self._seed)
        head = torch.randn(output.features.shape[1], generator=generator).to(output.features)
        return (output.features @ head).sum()

    def _cut(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        """Start recording at the layer's output, or join where another observer has started."""
        if not is_positional(layer, output) or not inputs:
            return None
        torch.set_grad_enabled(True)
        self._layer, self._input = layer, inputs[0].detach().clone()  # the next layers may overwrite it
        self._output = output if output.requires_grad else output.detach().requires_grad_()
        return self._output.clone()  # what an activation in place may change


def weight_gradients(layer: nn.Module, inputs: Tensor, signals: Tensor) -> Tensor:
    """Gradient of each image with respect to the layer's weight, ``(n, n_weights)``.

    Args:
        layer: A ``Conv2d`` or ``Linear``.
        inputs: What went into it, ``(n, ...)``.
        signals: Gradient with respect to its output, ``(n, ...)``.
    """
    if type(layer).forward is nn.Linear.forward:
        return torch.bmm(signals.flatten(1, -2).transpose(1, 2), inputs.flatten(1, -2)).flatten(1)
    if _is_pointwise(layer):
        return torch.bmm(signals.flatten(2), inputs.flatten(2).transpose(1, 2)).flatten(1)

    def one(image: Tensor, signal: Tensor) -> Tensor:
        def along(weight: Tensor) -> Tensor:
            return (functional_call(layer, {"weight": weight}, (image[None],))[0] * signal).sum()

        return grad(along)(cast(Tensor, layer.weight).detach().float())

    return vmap(one)(inputs, signals).flatten(1)


def _is_pointwise(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and type(layer).forward is nn.Conv2d.forward
        and (layer.kernel_size, layer.stride, layer.groups) == ((1, 1), (1, 1), 1)
        and layer.padding in ((0, 0), 0, "valid", "same")
    )


def _weighted(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


class _Sketch:
    """Weights dealt at random into equally large buckets, each bucket added up under random signs."""

    def __init__(self, width: int, seed: int, device: torch.device) -> None:
        self._identity = width <= SKETCH_SIZE
        if self._identity:
            return
        generator = torch.Generator().manual_seed(seed)
        layers = math.ceil(width / SKETCH_SIZE)
        dealt = torch.randperm(layers * SKETCH_SIZE, generator=generator)
        signs = torch.randint(0, 2, (len(dealt),), generator=generator, dtype=torch.int8).float() * 2 - 1
        self._weight = dealt.clamp_max(width - 1).to(device)
        self._signs = (signs * (dealt < width)).to(device)  # the last buckets are one weight short

    def __call__(self, gradients: Tensor) -> Tensor:
        if self._identity:
            return gradients
        return (gradients[:, self._weight] * self._signs).unflatten(1, (-1, SKETCH_SIZE)).sum(dim=1)
