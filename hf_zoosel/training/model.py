"""A checkpoint made trainable: its own body, a target head, and source heads beside it."""

import copy
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from hf_zoosel.training.architecture import Composed, renumber_classes, with_classifier
from hf_zoosel.training.heads import STD, Heads, HeadsOutput as HeadsOutput, averaged
from hf_zoosel.training.watch import MapWatch, Stage, stages_of
from hf_zoosel.zoo import Network


class TwoHeads(nn.Module):
    """Any network of the zoo with a target head in its classifier's place, and source heads beside that.

    The classifier found by :class:`~hf_zoosel.zoo.Network` is exchanged within the network, so that everything the
    network does around it (dropout, an average of two distilled heads) goes on. Each of several averaged heads gets
    a target head of its own. A softmax behind the classifier has no part in the logits given here. A timm model
    without a classifier gets timm's; any other gets a linear head on its pooled output.

    The network becomes part of the model: it is changed, not copied. It stays on its device, in evaluation mode.

    Args:
        network: The checkpoint.
        sample_pixels: A few images as the network takes them, ``(n, channels, height, width)``, to find the
            classifier with.
        n_target: Classes of the target.
        n_source: Classes of a new source head; None for none.
        keep_head: Keep the checkpoint's own classifier as a head. Without effect where there is no trained one:
            ``has_kept_head`` says.
        generator: Draws the new heads' weights, on the CPU; seeded with 0 if None.
        std: Standard deviation of these weights; biases start at zero.

    Raises:
        ValueError: If a number of classes is below 1.

    Reference:
        Liu et al., "Improved Fine-Tuning by Better Leveraging Pre-Training Data", NeurIPS 2022,
        https://arxiv.org/abs/2111.12292. Their heads start with a standard deviation of sqrt(2 / 2048), about
        0.03; 0.01 is the default here.

    Example:
        >>> import timm
        >>> model = TwoHeads(Network(timm.create_model("test_vit")), torch.zeros(1, 3, 160, 160), 7, n_source=5)
        >>> output = model(torch.zeros(2, 3, 160, 160))
        >>> output.target.shape, output.source.shape, output.kept, output.features.shape
        (torch.Size([2, 7]), torch.Size([2, 5]), None, torch.Size([2, 64]))
    """

    def __init__(
        self,
        network: Network,
        sample_pixels: Tensor,
        n_target: int,
        *,
        n_source: int | None = None,
        keep_head: bool = False,
        generator: torch.Generator | None = None,
        std: float = STD,
    ) -> None:
        super().__init__()
        _check_classes(n_target=n_target, n_source=n_source)
        with torch.no_grad():
            trained = network(sample_pixels).logits is not None
            network = with_classifier(network, sample_pixels, n_target)
            features = network(sample_pixels).features
        self.body = network.module
        self.n_target = n_target
        self.n_features = features.shape[1]
        self.has_kept_head = keep_head and trained
        self.channels_last = network.channels_last
        self._forward = network.forward
        self._watch = MapWatch(self.body, stages_of(self.body, lambda: network(sample_pixels)))

        generator = generator or torch.Generator().manual_seed(0)
        self._paths = network.head_names(sample_pixels)
        for path in self._paths:
            classifier = cast("nn.Linear | nn.Conv2d", self.body.get_submodule(path))
            heads = Heads(
                classifier, n_target, n_source=n_source, keep=self.has_kept_head, generator=generator, std=std
            )
            self.body.set_submodule(path, heads)
        self._headless: Network | None = None  # or one whose classifier is more than a layer
        self.appended: Heads | None = None
        if not self._paths:
            like = nn.utils.skip_init(nn.Linear, self.n_features, 1, device=features.device)
            self._headless = network
            self.appended = Heads(like, n_target, n_source=n_source, generator=generator, std=std)
        _drop_caches(self)

    def forward(self, pixels: Tensor) -> HeadsOutput:
        """All heads on one batch ``(n, channels, height, width)``, from one pass through the body."""
        if self._headless is None or self.appended is None:
            self._forward(self.body, pixels)
            output = averaged([heads.take() for heads in self._heads])
        else:
            seen = self._headless(pixels)
            self.appended(seen.features)
            output = self.appended.take()
            if self.has_kept_head:
                output = HeadsOutput(output.target, output.source, seen.logits, output.features)
        self._watch.end_of_pass()
        return output

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """The new heads' parameters, the target's and the source's, by their names in the model."""
        new = [layer for heads in self._heads for layer in (heads.target, heads.source) if layer is not None]
        theirs = {parameter for layer in new for parameter in layer.parameters()}
        return {name: parameter for name, parameter in self.named_parameters() if parameter in theirs}

    def backbone_parameters(self) -> dict[str, nn.Parameter]:
        """All that comes with the checkpoint, its own head included where that was kept, by name."""
        new = self.head_parameters()
        return {name: parameter for name, parameter in self.named_parameters() if name not in new}

    def source_head_tensors(self) -> dict[str, Tensor]:
        """Weights of the source heads: the checkpoint's own under ``kept.``, a new one under ``source.``."""
        tensors: dict[str, Tensor] = {}
        for path, heads in zip(self._paths or ("head",), self._heads, strict=True):
            for kind, layer in (("kept", heads.kept), ("source", heads.source)):
                held = {} if layer is None else layer.state_dict()
                tensors |= {f"{kind}.{path}.{name}": tensor for name, tensor in held.items()}
        return tensors

    @torch.no_grad()
    def set_target_head(self, weight: Tensor, bias: Tensor) -> None:
        """Make the target's logits ``features @ weight.T + bias``.

        Args:
            weight: ``(n_target, n_features)``.
            bias: ``(n_target,)``.

        Raises:
            ValueError: If the network's classifier has no bias and ``bias`` is not zero.
        """
        layers = [heads.target for heads in self._heads]
        widths = [layer.weight.shape[1] for layer in layers]
        joined = len(set(widths)) > 1  # features side by side, as ``averaged`` gives them; else their mean
        parts = weight.mul(len(layers)).split(widths, dim=1) if joined else [weight] * len(layers)
        for layer, part in zip(layers, parts, strict=True):
            layer.weight.copy_(part.reshape(layer.weight.shape))
            if layer.bias is not None:
                layer.bias.copy_(bias)
            elif bias.any():
                raise ValueError(
                    "`bias` must be zero for a classifier without one, got another. Fit without intercept."
                )

    def plain(self) -> nn.Module:
        """A copy with the target head alone in the classifier's place: the library's own architecture.

        Of several averaged heads each is replaced by its target head. Networks without a classifier (timm's apart,
        which get timm's) become a module of ``backbone`` and ``head``.

        Returns:
            The module, in evaluation mode, on the same device.
        """
        copied = copy.deepcopy(self)
        copied._watch.detach()
        if copied._headless is not None and copied.appended is not None:
            return Composed(copied._headless, copied.appended.target).eval()
        for path, heads in zip(copied._paths, copied._heads, strict=True):
            copied.body.set_submodule(path, heads.target)
        renumber_classes(copied.body, self.n_target)
        return copied.body.eval()

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what a pass in evaluation mode cached: it may hold a graph, which cannot be copied."""
        _drop_caches(self)
        return self.__dict__

    def watching_maps(self) -> AbstractContextManager[list[Tensor]]:
        """Collect the maps of the last layer of each stage, while active, as DELTA compares them.

        The stages are timm's from a reduction of 4 on; of other networks only the last maps before pooling are
        known. Tokens ``(n, t, d)`` stand as ``(n, d, t, 1)``.

        Returns:
            Gives a list, to which every forward pass adds one ``(n, channels, height, width)`` a stage.

        Raises:
            ValueError: If the network has no maps and no tokens.
        """
        if not self._watch.stages:
            raise ValueError("the network must have feature maps or tokens, got none. Leave `delta` out.")
        return self._watch.watching()

    @property
    def has_bias(self) -> bool:
        """Whether the target head has a bias."""
        return all(heads.target.bias is not None for heads in self._heads)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The layers that :meth:`watching_maps` watches."""
        return self._watch.stages

    @property
    def _heads(self) -> list[Heads]:
        if self.appended is not None:
            return [self.appended]
        return [cast(Heads, self.body.get_submodule(path)) for path in self._paths]


def _drop_caches(module: nn.Module) -> None:
    """Some attention layers cache their bias in evaluation mode, and drop it when they are set to train."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.train()
    for layer, mode in modes:
        layer.training = mode


def _check_classes(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"`{name}` must be at least 1, got {count}. Pass the number of classes.")
