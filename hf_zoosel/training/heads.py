"""The heads that stand side by side in a classifier's place."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

STD = 0.01  # of a new head's weights


class HeadsOutput(NamedTuple):
    """What one forward pass gives.

    Attributes:
        target: Logits of the target head, ``(n, n_target)``.
        source: Logits of the new source head, ``(n, n_source)``, or None.
        kept: Logits of the checkpoint's own head, ``(n, n_pretrained)``, or None.
        features: Input of the heads, ``(n, n_features)``.
    """

    target: Tensor
    source: Tensor | None
    kept: Tensor | None
    features: Tensor


class Heads(nn.Module):
    """A target head, with a source head and the checkpoint's own beside it if wanted, all on the same features.

    It takes the place of a classifier, and what it returns is the target's logits alone: whatever the network
    does with them (averages two heads, appends a softmax, fills an output record) goes on as before. All logits
    are set aside for :meth:`take`, untouched by that.

    Args:
        like: The classifier; new heads are layers of its kind, with a bias where it has one.
        n_target: Classes of the target.
        n_source: Classes of a new source head; None for none.
        keep: Whether the classifier itself stays as one of the heads.
        generator: Draws the new weights; seeded with 0 if None.
        std: Standard deviation of the new weights. Biases start at zero.
    """

    def __init__(
        self,
        like: nn.Linear | nn.Conv2d,
        n_target: int,
        *,
        n_source: int | None = None,
        keep: bool = False,
        generator: torch.Generator | None = None,
        std: float = STD,
    ) -> None:
        super().__init__()
        generator = generator or torch.Generator().manual_seed(0)
        self.target = _new_layer(like, n_target, generator, std)
        self.source = None if n_source is None else _new_layer(like, n_source, generator, std)
        self.kept = like if keep else None
        self._aside: HeadsOutput | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Logits of the target, shaped as the classifier's were."""
        target = self.target(input)
        self._aside = HeadsOutput(
            target.flatten(1),
            None if self.source is None else self.source(input).flatten(1),
            None if self.kept is None else self.kept(input).flatten(1),
            input.flatten(1),
        )
        return target

    @property
    def weight(self) -> Tensor:
        """The target head's, for a network that looks at its classifier (at its type, or its device)."""
        return self.target.weight

    @property
    def bias(self) -> Tensor | None:
        """The target head's."""
        return self.target.bias

    @property
    def in_features(self) -> int:
        """Width of what the heads take."""
        return self.target.weight.shape[1]

    @property
    def out_features(self) -> int:
        """Classes of the target."""
        return self.target.weight.shape[0]

    def take(self) -> HeadsOutput:
        """What the last forward pass set aside, given away once: it holds the graph."""
        aside, self._aside = self._aside, None
        assert aside is not None, "nothing ran before"
        return aside


def averaged(outputs: Sequence[HeadsOutput]) -> HeadsOutput:
    """The output of a network that averages several heads; their features side by side where they differ in width."""
    if len(outputs) == 1:
        return outputs[0]
    target, source, kept, features = zip(*outputs, strict=True)
    alike = len({one.shape for one in features}) == 1
    return HeadsOutput(
        _mean(target),
        None if source[0] is None else _mean(source),
        None if kept[0] is None else _mean(kept),
        _mean(features) if alike else torch.cat(features, dim=1),
    )


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).mean(dim=0)


def _new_layer(
    like: nn.Linear | nn.Conv2d, n_classes: int, generator: torch.Generator, std: float
) -> nn.Linear | nn.Conv2d:
    """A layer of the same kind for other classes; nothing is drawn from the global generator."""
    weight, has_bias = like.weight, like.bias is not None
    with torch.device("meta"):
        if isinstance(like, nn.Conv2d):
            layer: nn.Linear | nn.Conv2d = nn.Conv2d(like.in_channels, n_classes, 1, bias=has_bias)
        else:
            layer = nn.Linear(like.in_features, n_classes, bias=has_bias)
    layer = layer.to_empty(device=weight.device).to(weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0.0, std, generator=generator))
        if layer.bias is not None:
            layer.bias.zero_()
    return layer
