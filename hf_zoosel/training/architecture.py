"""What timm and transformers themselves make of a new number of classes."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from hf_zoosel.zoo import Network
from hf_zoosel.zoo.network import one_vector_each
from hf_zoosel.zoo.timm_models import watch


def is_timm(module: nn.Module) -> bool:
    """Whether a module is a timm model."""
    return hasattr(module, "pretrained_cfg") and hasattr(module, "reset_classifier")


def is_transformers(module: nn.Module) -> bool:
    """Whether a module is a transformers model."""
    return hasattr(module, "config") and hasattr(module, "save_pretrained")


def with_classifier(network: Network, sample_pixels: Tensor, n_classes: int) -> Network:
    """A timm model without a head gets the one timm gives it; any other network stays as it is.

    A model whose pooling was switched off pools as its architecture does: by its class token, or the average.
    """
    module: Any = network.module
    if not is_timm(module) or module.num_classes > 0:
        return network
    with torch.no_grad():
        pools = network.forward(module, sample_pixels).ndim == 2
    pool = "token" if getattr(module, "cls_token", None) is not None else "avg"
    with torch.random.fork_rng(devices=[]):  # drawn to be written over
        module.reset_classifier(n_classes, *(() if pools else (pool,)))
    if not pools and "global_pool" in getattr(module, "_model_args", {}):
        module._model_args = {key: value for key, value in module._model_args.items() if key != "global_pool"}
    module.eval()
    return watch(module)


def renumber_classes(module: nn.Module, n_classes: int) -> None:
    """Tell a module of a library that its classifier, already exchanged, has so many classes."""
    known: Any = module
    if is_timm(module):  # its reset_classifier would draw new layers, and not always the same kinds
        counting = [layer for layer in module.modules() if getattr(layer, "num_classes", None) == known.num_classes]
        for layer in counting:
            cast(Any, layer).num_classes = n_classes
        stale = {"tag", "label_names", "label_descriptions", "label_offset"}  # what they say is of the old head
        kept = {key: value for key, value in dict(known.pretrained_cfg).items() if key not in stale}
        known.pretrained_cfg = known.default_cfg = kept | {"num_classes": n_classes}
    elif is_transformers(module):
        known.config.num_labels = n_classes
        known.config.problem_type = "single_label_classification"
        if hasattr(known, "num_labels"):
            known.num_labels = n_classes


class Composed(nn.Module):
    """A network whose head is no layer of its own: any backbone, and a linear head on its pooled output."""

    def __init__(self, network: Network, head: nn.Module) -> None:
        super().__init__()
        self.backbone = network.module
        self.head = head
        self._network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits ``(n, n_classes)`` of a batch ``(n, 3, height, width)``."""
        return self.head(one_vector_each(self._network(pixels).features))
