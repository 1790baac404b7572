"""The feature maps of a network's stages, collected while somebody looks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_zoosel.features.layers import hooked, is_map, is_positional

_STEM = 4  # a stage of lower reduction than this is the stem


@dataclass(frozen=True)
class Stage:
    """The last layer of a stage: its path in the network, and whether it puts its channels last."""

    layer: str
    channels_last: bool


class MapWatch:
    """Keeps what the stages of a network put out, as maps ``(n, channels, height, width)``.

    The hooks stay on the layers, idle while nobody looks: a compiled network would not see hooks that come and go.
    """

    def __init__(self, module: nn.Module, stages: tuple[Stage, ...]) -> None:
        self.stages = stages
        self._maps: list[Tensor] | None = None
        self._latest: dict[int, Tensor] = {}
        layers = [module.get_submodule(stage.layer) for stage in stages]
        self._handles = [layer.register_forward_hook(_Keep(self, place)) for place, layer in enumerate(layers)]

    @contextmanager
    def watching(self) -> Iterator[list[Tensor]]:
        """A list that every forward pass adds its maps to, one a stage."""
        maps: list[Tensor] = []
        self._maps = maps
        try:
            yield maps
        finally:
            self._maps = None
            self._latest = {}

    def keep(self, place: int, output: Any) -> None:
        """Remember what a stage gave; of a layer that runs several times, the last."""
        if self._maps is not None:
            self._latest[place] = output

    def end_of_pass(self) -> None:
        """Hand over the maps of a pass."""
        if self._maps is not None:
            for place, stage in enumerate(self.stages):
                self._maps.append(_as_map(self._latest[place], stage.channels_last))
            self._latest = {}

    def detach(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()


class _Keep:
    def __init__(self, watch: MapWatch, place: int) -> None:
        self.watch, self.place = watch, place

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.watch.keep(self.place, output)


def stages_of(module: nn.Module, run: Callable[[], object]) -> tuple[Stage, ...]:
    """The last layer of each stage where timm says so, else the last layer before pooling that gives maps or tokens.

    Args:
        module: The network.
        run: Runs it on a small batch.
    """
    names = {layer: name for name, layer in module.named_modules()}
    shapes: dict[str, torch.Size] = {}
    last: dict[str, str] = {}

    def look(layer: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        name = names[layer]
        shapes[name] = output.shape if isinstance(output, Tensor) else torch.Size()
        if is_map(output):
            last["maps"] = name
        elif is_positional(layer, output):  # tokens after the maps: these were a patch embedding
            last.pop("maps", None)
        if len(shapes[name]) == 3 and shapes[name][1] > 1 and output.is_floating_point():
            last["tokens"] = name

    with hooked(list(names), look), torch.no_grad():
        run()
    stages = [
        Stage(layer, len(shape) == 3 or shape[1] != channels)
        for layer, channels in _timm_stages(module).items()
        if len(shape := shapes.get(layer, torch.Size())) in (3, 4)
    ]
    if not stages and "maps" in last:
        stages = [Stage(last["maps"], channels_last=False)]
    elif not stages and "tokens" in last:
        stages = [Stage(last["tokens"], channels_last=True)]
    return tuple(stages)


def _timm_stages(module: nn.Module) -> dict[str, int]:
    """From ``feature_info``, the last layer at each resolution and its channels, the stem left out."""
    info = getattr(module, "feature_info", None)
    if not isinstance(info, list) or not all(isinstance(entry, dict) and "module" in entry for entry in info):
        return {}
    last = {entry["reduction"]: entry for entry in info if entry["reduction"] >= _STEM}
    return {entry["module"]: entry["num_chs"] for entry in last.values()}


def _as_map(output: Tensor, channels_last: bool) -> Tensor:
    """Channels first; tokens ``(n, t, d)`` stand in one column, ``(n, d, t, 1)``."""
    maps = output.movedim(-1, 1) if channels_last else output
    return maps if maps.ndim == 4 else maps.unsqueeze(-1)
