"""Penalties are summed in float32 at the least, whatever autocast or the model's own type made of the inputs."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x``, upcast if it is of a half type: squares of ordinary activations overflow float16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
