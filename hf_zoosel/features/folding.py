"""Batch normalisations folded into the convolutions before them, for the time of some forward passes.

In evaluation a batch normalisation multiplies and shifts each channel by constants, which the convolution before it
can do as well. What is left out is one reading and one writing of every activation: a sixth of a small network's
time on a CPU.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from hf_zoosel.features.layers import hooked
from hf_zoosel.zoo import Network, Output

_TOLERANCE = 1e-4  # of the largest feature or logit; folding moves float32 by some 1e-6


@contextmanager
def norms_folded(network: Network, image: Tensor) -> Iterator[int]:
    """Fold what can be folded, and undo it at the end.

    Which convolution a layer normalises is learned by watching one image go through. Folded are convolutions and
    batch normalisations of torch and timm that run once, one right after the other, and that nobody else watches;
    where the network's output on the image is then another than before, none are.

    Args:
        network: In evaluation mode.
        image: A batch ``(1, 3, height, width)`` as the network takes it.

    Yields:
        How many were folded. Weights and layers are bit for bit as they were on leaving.

    Example:
        >>> network = Network(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)))
        >>> with norms_folded(network, torch.ones(1, 3, 9, 9)) as n_folded:
        ...     n_folded
        1
    """
    with ExitStack() as folds:
        pairs: list[tuple[nn.Conv2d, nn.Module]] = []
        if any(_is_norm(layer) for layer in network.module.modules()):
            with torch.no_grad():  # not inference_mode: what a network keeps of it could not be trained through
                before, pairs = _watched(network, image)
                for conv, norm in pairs:
                    folds.enter_context(_folded(conv, norm))
                if pairs and not _alike(before, network(image)):
                    folds.close()
                    pairs = []
        yield len(pairs)


def _watched(network: Network, image: Tensor) -> tuple[Output, list[tuple[nn.Conv2d, nn.Module]]]:
    """The output for an image, and each normalisation with the convolution it can be folded into."""
    layers = [layer for layer in network.module.modules() if _is_conv(layer) or _is_norm(layer)]
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def record(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls.append((layer, args[0] if args else torch.empty(0), output))

    with hooked(layers, record):
        output = network(image)
    by_layer: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}
    for layer, given, made in calls:
        by_layer.setdefault(layer, []).append((given, made))
    once = {layer: seen[0] for layer, seen in by_layer.items() if len(seen) == 1}
    made_by = {id(made): layer for layer, (_, made) in once.items() if isinstance(layer, nn.Conv2d)}
    pairs = [(made_by.get(id(given)), layer) for layer, (given, _) in once.items() if _is_norm(layer)]
    return output, [(conv, norm) for conv, norm in pairs if isinstance(conv, nn.Conv2d)]


def _is_conv(layer: nn.Module) -> bool:
    kind = type(layer)
    known = kind is nn.Conv2d or kind.__module__ == "timm.layers.conv2d_same"
    return known and isinstance(layer, nn.Conv2d) and not _is_watched(layer)


def _is_norm(layer: nn.Module) -> bool:
    kind = type(layer)
    known = kind is nn.BatchNorm2d or (isinstance(layer, nn.BatchNorm2d) and kind.__module__ == "timm.layers.norm_act")
    return known and layer.running_mean is not None and not layer.training and not _is_watched(layer)


def _is_watched(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__)


@contextmanager
def _folded(conv: nn.Conv2d, norm: Any) -> Iterator[None]:
    """One convolution that does the work of the normalisation after it, of which timm's drop and activation stay."""
    weight, bias = conv.weight, conv.bias
    statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    conv.weight, conv.bias = fuse_conv_bn_weights(weight, bias, *statistics)
    norm.forward = nn.Sequential(*(norm._modules[name] for name in ("drop", "act") if name in norm._modules)).forward
    try:
        yield
    finally:
        del norm.forward
        conv.weight, conv.bias = weight, bias


def _alike(before: Output, after: Output) -> bool:
    parts = [(before.features, after.features)]
    if before.logits is not None and after.logits is not None:
        parts.append((before.logits, after.logits))
    return all(bool((a - b).abs().max() <= _TOLERANCE * a.abs().max()) for a, b in parts)
