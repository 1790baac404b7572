"""DELTA's attention: how much the target would miss each channel of each watched layer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from hf_zoosel.features.layers import hooked
from hf_zoosel.objectives import measure_channel_weights
from hf_zoosel.training.evaluate import outputs_of
from hf_zoosel.training.feed import Feed
from hf_zoosel.training.model import TwoHeads
from hf_zoosel.training.refit import LinearHead, refit_head

_IMAGES = 32  # a pass over them for each channel


def channel_weights_of(model: TwoHeads, feed: Feed, *, shown: bool = False) -> list[Tensor]:
    """Weights ``(channels,)`` of each watched layer, from the loss with each channel set to zero.

    The classifier is logistic regression on the features of all training rows; the loss is measured on at most 32 of
    them, spread over the data set, so that the cost is one pass over 32 images for each channel.

    Args:
        model: Before training, on the device.
        feed: Gives the target's rows.
        shown: Whether to show a progress bar.
    """
    outputs = outputs_of(model, feed.in_order(feed.train), feed.preprocess, team=feed.team)
    head = refit_head(outputs, None, outputs.target.shape[1])
    some = np.unique(np.linspace(0, len(feed.train) - 1, _IMAGES).astype(np.int64))
    batches = list(feed.alone(feed.train.take(some)))
    pixels = feed.preprocess.batch(torch.cat([one.pixels for one in batches]).to(feed.team.device))
    labels = torch.cat([one.labels for one in batches]).to(feed.team.device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), model.watching_maps() as maps:
        model(pixels[:1])
        widths = [one.shape[1] for one in maps]
    with tqdm(total=sum(widths) + len(widths), desc="attention", unit="channel", disable=not shown) as bar:
        losses = _Losses(model, head, pixels, labels, tell=bar.update)
        weights = [
            measure_channel_weights(losses.of(stage), width).to(feed.team.device)
            for stage, width in zip(model.stages, widths, strict=True)
        ]
    model.train(was_training)
    return weights


class _Losses:
    """The loss of a fixed classifier on fixed images, with a channel of one layer gone."""

    def __init__(
        self, model: TwoHeads, head: LinearHead, pixels: Tensor, labels: Tensor, *, tell: Callable[[], object]
    ) -> None:
        self._model, self._pixels, self._labels, self._tell = model, pixels, labels, tell
        self._weight, self._bias = head.weight.to(pixels.device), head.bias.to(pixels.device)

    def of(self, stage: Any) -> Any:
        """A function from a channel of the stage, or None, to the loss without it."""
        layer = self._model.body.get_submodule(stage.layer)

        def loss_without(channel: int | None) -> Tensor:
            def silence(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
                silenced = output.clone()
                last = stage.channels_last or output.ndim == 3
                (silenced.movedim(-1, 1) if last else silenced)[:, channel] = 0
                return silenced

            with torch.no_grad(), hooked([] if channel is None else [layer], silence):
                features = self._model(self._pixels).features.float()
            self._tell()
            return cross_entropy(features @ self._weight.T + self._bias, self._labels)

        return loss_without
