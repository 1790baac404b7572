"""Stochastic normalisation: some channels, drawn anew each step, trust the moving statistics (Kou et al. 2020)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm


class _StochNorm(nn.modules.batchnorm._BatchNorm):
    """The two branches over whatever plain layer it stands for; see ``replace_norms``."""

    probability: float
    plain: type[nn.Module]  # the layer's class before it was replaced

    def forward(self, input: Tensor) -> Tensor:  # its name in torch
        if not self.training:
            return self._finish(super().forward(input))
        # The moving branch comes first: it normalises by the statistics before this batch. They are cloned because
        # the batch branch then updates them in place, unseen by autograd, whose backward would read the new ones.
        mean, var = self.running_mean.clone(), self.running_var.clone()  # type: ignore[union-attr]
        moving = batch_norm(input, mean, var, self.weight, self.bias, training=False, eps=self.eps)
        batch = super().forward(input)
        drawn = torch.rand(self.num_features, device=input.device) < self.probability
        return self._finish(torch.where(drawn.view(-1, *[1] * (input.ndim - 2)), moving, batch))

    def _finish(self, normalised: Tensor) -> Tensor:
        """What timm's BatchNormAct2d does after its normalisation; nothing for a plain layer."""
        for name in ("drop", "act"):
            if name in self._modules:
                normalised = getattr(self, name)(normalised)
        return normalised

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, probability={self.probability}"


class StochNorm1d(_StochNorm, nn.BatchNorm1d):
    """Stochastic normalisation over ``(n, c)`` or ``(n, c, l)``; see ``replace_norms``, which makes them."""

    plain = nn.BatchNorm1d


class StochNorm2d(_StochNorm, nn.BatchNorm2d):
    """Stochastic normalisation over ``(n, c, h, w)``; see ``replace_norms``, which makes them."""

    plain = nn.BatchNorm2d


def replace_norms(module: nn.Module, probability: float) -> None:
    """Make the batch normalisation of a network stochastic, in place.

    In training each channel of each layer is normalised by the moving statistics with the given probability, and by
    those of the batch otherwise. The moving statistics take in every batch, as ever. In evaluation nothing changes.
    Layers stay the same objects with the same parameters, buffers, hooks and keys in the state dict: only their class
    is another until ``restore_norms``. Like dropout, a layer draws from torch's default generator of the input's
    device: who wants to repeat a run seeds that, the same on every process for the same channels on all.

    Args:
        module: A network with ``BatchNorm1d`` or ``BatchNorm2d`` layers, or timm's ``BatchNormAct2d``, whose drop
            and activation are kept. Layers that track no statistics are left alone.
        probability: Of the moving statistics, in [0, 1]; 0 is plain batch normalisation. Of layers already replaced
            it is set anew.

    Raises:
        ValueError: If ``probability`` is outside [0, 1], no layer can be replaced, or one is of a class with a
            forward of its own. In that case nothing is replaced.

    Reference:
        Kou et al., "Stochastic normalization", NeurIPS 2020. With s ~ Bernoulli per channel, y = gamma ((1 - s)
        x_moving + s x_batch) + beta. Their p, 0.5 by default, is the probability of the *batch* branch: 1 less ours.
        Deviation: their code back-propagates through the moving branch with statistics that the batch branch has
        overwritten in the meantime; here both passes use the same.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> replace_norms(network, 0.5)
        >>> type(network[1]).__name__
        'StochNorm2d'
        >>> restore_norms(network)
        >>> type(network[1]).__name__
        'BatchNorm2d'
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"`probability` must be in [0, 1], got {probability}. The authors take 0.5.")
    layers = [layer for layer in module.modules() if _is_replaceable(layer)]
    if not layers:
        raise ValueError(
            f"`module` must have batch normalisation that tracks statistics, got a {type(module).__name__} without. "
            "Leave stoch_norm out for networks of another normalisation."
        )
    for layer in layers:
        swapped: Any = layer  # a class is assigned, which the type checker does not follow
        if not isinstance(layer, _StochNorm):
            swapped.plain = type(layer)
            swapped.__class__ = StochNorm2d if isinstance(layer, nn.BatchNorm2d) else StochNorm1d
        swapped.probability = float(probability)


def restore_norms(module: nn.Module) -> None:
    """Give every layer that ``replace_norms`` replaced its own class back, in place, with what it has learned.

    Args:
        module: The network, or a copy of it; one without such layers is left as it is.

    Example:
        >>> restore_norms(nn.BatchNorm2d(8))
    """
    for layer in module.modules():
        if isinstance(layer, _StochNorm):
            swapped: Any = layer
            swapped.__class__ = layer.plain
            for name in ("plain", "probability"):
                swapped.__dict__.pop(name, None)


def _is_replaceable(layer: nn.Module) -> bool:
    if isinstance(layer, _StochNorm):
        return True
    if not isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) or layer.running_mean is None:
        return False
    kind = type(layer)
    known = kind.forward is nn.BatchNorm2d.forward or kind.__module__ == "timm.layers.norm_act"
    if not known:
        raise ValueError(
            f"`module` must have batch normalisation of torch or timm, got {kind.__module__}.{kind.__qualname__} with "
            "a forward of its own. Leave stoch_norm out for this network."
        )
    return True
