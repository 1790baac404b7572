"""L2-SP: stay near the starting point (Li, Grandvalet and Davoine 2018)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hf_zoosel.objectives._precision import at_least_float32


def l2_sp(weights: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
    """Half the squared distance of the backbone from where it started.

    Args:
        weights: Parameters of the backbone by name, any shapes. The classifier is new, has no starting point and
            stays with plain weight decay.
        start: What each of them was before training, under the same name; other names are not looked at.

    Returns:
        1/2 sum (w - w0)^2, a scalar of at least float32; 0 at the start.

    Raises:
        ValueError: If ``weights`` is empty, or ``start`` lacks a name or has it in another shape.

    Reference:
        Li, Grandvalet and Davoine, "Explicit inductive bias for transfer learning with convolutional networks", ICML
        2018, https://arxiv.org/abs/1802.01483, Eq. 2. To be multiplied by its alpha; the beta/2 ||w||^2 of the
        classifier is the optimizer's weight decay. The paper leaves free whether normalisation weights take part:
        whatever is in ``weights`` does.

    Example:
        >>> start = {"conv.weight": torch.zeros(2, 3)}
        >>> l2_sp({"conv.weight": torch.ones(2, 3)}, start)
        tensor(3.)
    """
    check_start(weights, start)
    squares = [at_least_float32(w - start[name].detach()).square().sum() for name, w in weights.items()]
    return torch.stack(squares).sum() / 2


def check_start(weights: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> None:
    """Raise unless ``start`` has a tensor of the same shape for every weight."""
    if not weights:
        raise ValueError("`weights` must name at least 1 parameter, got none. Pass the backbone's parameters.")
    unlike = [name for name, w in weights.items() if name not in start or start[name].shape != w.shape]
    if unlike:
        raise ValueError(
            f"`start` must hold a tensor of the same shape for each of `weights`, got none for {unlike[:3]} "
            f"({len(unlike)} of {len(weights)}). Copy the weights before training, without the classifier."
        )
