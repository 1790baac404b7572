"""The table of regularisers. To add one: write its file, then add one line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Literal, get_args

from hf_zoosel.objectives.bss import bss
from hf_zoosel.objectives.delta import delta
from hf_zoosel.objectives.l2_sp import l2_sp
from hf_zoosel.objectives.lwf import lwf
from hf_zoosel.objectives.mars import project_distances
from hf_zoosel.objectives.stoch_norm import replace_norms, restore_norms

RegularizerKind = Literal[
    "penalty",  # fn(**needs) -> scalar, times its strength a term of the loss
    "projection",  # fn(weights, start, radius=strength), in place after each step of the optimizer
    "layers",  # fn(module, strength), in place before training; `inverse(module)` before export
]
RegularizerNeed = Literal[
    "weights",  # name -> backbone parameter
    "start",  # name -> what it was before training
    "features",  # (n, d) input of the classifier, target rows
    "maps",  # feature maps (n, c, h, w) of the watched layers, target rows
    "start_maps",  # the same of the frozen start network
    "kept_logits",  # (n, k_s) of the source head that was kept
    "start_logits",  # (n, k_s) of the frozen start network
    "channel_weights",  # (c,) for each watched layer
]


@dataclass(frozen=True)
class Regularizer:
    """A way to hold fine-tuning back, and what must be known to apply it.

    Attributes:
        name: The name a person asks for.
        fn: What it does; how it is called hangs on ``kind``.
        kind: "penalty", "projection" or "layers".
        needs: Names of the arguments of ``fn`` that the training loop has to have at hand.
        strength: Where to start: the published default, or the middle of the published range.
        reference: arXiv id or short citation.
        inverse: ``inverse(module)`` takes the layers out again; for kind "layers" only.
    """

    name: str
    fn: Callable[..., Any]
    kind: RegularizerKind
    needs: tuple[RegularizerNeed, ...]
    strength: float
    reference: str
    inverse: Callable[..., None] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(RegularizerKind):
            raise ValueError(f"`kind` must be one of {list(get_args(RegularizerKind))}, got {self.kind!r}.")
        unknown = [need for need in self.needs if need not in get_args(RegularizerNeed)]
        if unknown:
            raise ValueError(f"`needs` must be a tuple of some of {list(get_args(RegularizerNeed))}, got {unknown}.")
        if (self.kind == "layers") != (self.inverse is not None):
            raise ValueError(f'`inverse` must be given for kind "layers" and no other, got {self.inverse}.')


_MAPS: tuple[RegularizerNeed, ...] = ("maps", "start_maps")
_WEIGHTS: tuple[RegularizerNeed, ...] = ("weights", "start")
_LOGITS: tuple[RegularizerNeed, ...] = ("kept_logits", "start_logits")


def _lines(*regularizers: Regularizer) -> Mapping[str, Regularizer]:
    return MappingProxyType({regularizer.name: regularizer for regularizer in regularizers})


# Strengths: for L2-SP and DELTA the 0.01 of DELTA's authors, who sum over 64 images; for mars the middle, exp(2), of
# the exp(0.5) to exp(3.5) that its authors search for each network and target.
REGULARIZERS = _lines(
    Regularizer("l2_sp", l2_sp, "penalty", _WEIGHTS, 0.01, "arXiv:1802.01483"),
    Regularizer("delta", delta, "penalty", _MAPS, 0.64, "arXiv:1901.09229"),
    Regularizer("delta_attention", delta, "penalty", (*_MAPS, "channel_weights"), 0.64, "arXiv:1901.09229"),
    Regularizer("bss", bss, "penalty", ("features",), 0.001, "Chen et al., NeurIPS 2019"),
    Regularizer("lwf", lwf, "penalty", _LOGITS, 1.0, "arXiv:1606.09282"),
    Regularizer("mars", project_distances, "projection", _WEIGHTS, 7.4, "arXiv:2002.08253"),
    Regularizer("stoch_norm", replace_norms, "layers", (), 0.5, "Kou et al., NeurIPS 2020", restore_norms),
)


def get_regularizer(name: str) -> Regularizer:
    """Look a regulariser up by name.

    Args:
        name: A name in ``REGULARIZERS``.

    Returns:
        The table's entry.

    Raises:
        ValueError: If the name is not in the table.

    Example:
        >>> get_regularizer("l2_sp").needs
        ('weights', 'start')
    """
    if name in REGULARIZERS:
        return REGULARIZERS[name]
    close = get_close_matches(name.lower(), REGULARIZERS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"`regularizers` must be some of {sorted(REGULARIZERS)}, got {name!r}.{hint}")
