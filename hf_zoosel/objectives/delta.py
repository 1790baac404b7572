"""DELTA: keep the feature maps, and most of all the channels that the target needs (Li et al. 2019)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hf_zoosel.objectives._precision import at_least_float32

_SHARPNESS = 1 / 5  # of the softmax over standardised increases, as in the authors' code


def delta(
    maps: Sequence[Tensor], start_maps: Sequence[Tensor], channel_weights: Sequence[Tensor] | None = None
) -> Tensor:
    """Squared distance of feature maps from those of the frozen start network on the same images.

    Args:
        maps: One tensor ``(n, c, h, w)`` per watched layer; c, h and w may differ between layers.
        start_maps: The same layers of the start network, the same shapes. No gradient flows to them.
        channel_weights: One tensor ``(c,)`` per layer that sums to 1, from ``channel_weights`` below. None weighs
            all channels the same, 1 / c.

    Returns:
        1/2 sum over layers and channels of c weight_c ||map_c - start_map_c||^2 / (h w), mean over the n images; a
        scalar of at least float32, 0 at the start.

    Raises:
        ValueError: If there are no layers, or they differ in number or shape.

    Reference:
        Li et al., "DELTA: DEep Learning Transfer using Feature Map with Attention for Convolutional Networks", ICLR
        2019, https://arxiv.org/abs/1901.09229. The factors c, 1 / (h w) and 1/2 are those of the authors'
        code (github.com/lixingjian/DELTA, ``reg_att_fea_map``). Deviations: mean over images where theirs is the
        sum, so that the strength depends neither on the batch size nor on the number of processes (their 0.01 at 64
        images is 0.64 here); and without attention the same factors with equal weights, where theirs drops
        1 / (h w), so that one strength serves both and large maps do not drown small ones.

    Example:
        >>> delta([torch.ones(4, 3, 2, 2)], [torch.zeros(4, 3, 2, 2)])
        tensor(1.5000)
        >>> delta([torch.ones(4, 3, 2, 2)], [torch.zeros(4, 3, 2, 2)], [torch.tensor([1.0, 0.0, 0.0])])
        tensor(1.5000)
    """
    _check_layers(maps, start_maps, channel_weights)
    layers = []
    for i, (new, old) in enumerate(zip(maps, start_maps, strict=True)):
        squares = (at_least_float32(new) - at_least_float32(old.detach())).square()
        distances = squares.transpose(0, 1).flatten(1).mean(dim=1)  # (c,) over images and positions
        if channel_weights is not None:
            distances = len(distances) * channel_weights[i].detach().to(distances) * distances
        layers.append(distances.sum())
    return torch.stack(layers).sum() / 2


def channel_weights(losses_without: Tensor, loss: Tensor | float) -> Tensor:
    """DELTA's attention of one layer: channels that the target would miss weigh more.

    Args:
        losses_without: Loss on target images with channel i set to zero, shape ``(c,)``, of the start network under
            a classifier trained on the target.
        loss: The same loss with all channels.

    Returns:
        Softmax over channels of the standardised increases divided by 5, shape ``(c,)``, sum 1, on the device of
        ``losses_without``; equal weights where all channels matter the same.

    Raises:
        ValueError: If ``losses_without`` is not ``(c,)`` with c > 0, or a loss is not finite.

    Reference:
        Li et al. 2019, which takes the softmax of the increases themselves; standardising them (population
        deviation) and dividing by 5 is the authors' code (``channel_wei`` in train.py).

    Example:
        >>> channel_weights(torch.tensor([2.0, 1.0, 1.0]), 1.0)
        tensor([0.4332, 0.2834, 0.2834])
    """
    if losses_without.ndim != 1 or len(losses_without) == 0:
        raise ValueError(
            f"`losses_without` must be (n_channels,) with at least 1 channel, got shape "
            f"{tuple(losses_without.shape)}. Give one loss per channel of one layer."
        )
    increases = at_least_float32(losses_without.detach()) - loss
    if not increases.isfinite().all():
        raise ValueError(
            "`losses_without` and `loss` must be finite, got NaN or infinity. Train the classifier at a lower rate."
        )
    spread = increases.std(correction=0)
    if spread == 0:
        return torch.full_like(increases, 1 / len(increases))
    return ((increases - increases.mean()) / spread * _SHARPNESS).softmax(dim=0)


def measure_channel_weights(loss_without: Callable[[int | None], Tensor | float], n_channels: int) -> Tensor:
    """``channel_weights`` of one layer, by asking for the loss once per channel.

    Args:
        loss_without: Called with the channel to set to zero, or None for none; returns the loss on the same target
            images each time.
        n_channels: How many channels the layer has.

    Returns:
        Shape ``(n_channels,)``, float32 on the CPU; see ``channel_weights``.

    Raises:
        ValueError: As ``channel_weights``.

    Example:
        >>> needed = torch.tensor([0.5, 0.0, 0.0])
        >>> measure_channel_weights(lambda i: 1.0 if i is None else 1.0 + needed[i], 3)
        tensor([0.4332, 0.2834, 0.2834])
    """
    with torch.no_grad():
        losses = torch.tensor([float(loss_without(channel)) for channel in range(n_channels)])
        return channel_weights(losses, float(loss_without(None)))


def _check_layers(
    maps: Sequence[Tensor], start_maps: Sequence[Tensor], channel_weights: Sequence[Tensor] | None
) -> None:
    shapes, start_shapes = [tuple(one.shape) for one in maps], [tuple(one.shape) for one in start_maps]
    if not shapes or shapes != start_shapes:
        raise ValueError(
            f"`maps` and `start_maps` must be the same layers, at least 1, got shapes {shapes} and {start_shapes}. "
            "Watch the same layers of both networks on the same images."
        )
    if channel_weights is None:
        return
    widths = [tuple(one.shape) for one in channel_weights]
    if widths != [shape[1:2] for shape in shapes]:
        raise ValueError(
            f"`channel_weights` must hold (n_channels,) for each layer, got {widths} for maps of shapes {shapes}. "
            "Measure them on the layers that are watched."
        )
