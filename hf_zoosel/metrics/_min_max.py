"""Scaling of the terms of zoo-relative metrics over the candidates."""

import torch
from torch import Tensor

from hf_zoosel.metrics._checks import check_features

_EQUAL = 1e-12  # of the largest size: a narrower range is rounding, not to be stretched to [0, 1]


def min_max(terms: Tensor, q: int) -> Tensor:
    """Return each of the q columns scaled to [0, 1] over the candidates, float64; 0 where all are equal."""
    values = check_features(terms, "terms").double()  # (m, q)
    if values.shape[1] != q or len(values) == 0:
        raise ValueError(f"`terms` must have shape (n_candidates, {q}), got {tuple(values.shape)}.")
    least, span = values.amin(dim=0), values.amax(dim=0) - values.amin(dim=0)
    differ = span > _EQUAL * values.abs().amax(dim=0)
    return torch.where(differ, (values - least) / torch.where(differ, span, 1.0), 0.0)
