"""Input checks shared by the transport problems: one place, one wording."""

import torch
from torch import Tensor


def check_features(features: Tensor, name: str, *, convert: bool = True) -> Tensor:
    """Return ``features``, by default in float64, once known to be a finite float tensor of shape ``(n, d)``."""
    check_matrix(features, name)
    if features.numel() == 0:
        raise ValueError(
            f"`{name}` must have at least 1 row and 1 column, got shape {tuple(features.shape)}. "
            "Give one row of features per class, cluster or sample."
        )
    features = features.detach().double() if convert else features.detach()
    if features.sum().isfinite():  # so is every entry, found without a temporary of the features' size
        return features
    bad = (~features.isfinite().all(dim=1)).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"`{name}` must be finite, got {len(bad)} of {len(features)} rows with NaN or infinity, the first is row "
            f"{int(bad[0])}. Check the checkpoint and its preprocessing, and that no class is empty."
        )
    return features


def check_matrix(features: Tensor, name: str, *, like: Tensor | None = None) -> None:
    """Raise unless ``features`` is a 2-D float tensor, as wide as ``like``."""
    _check_floats(features, name)
    if features.ndim != 2:
        raise ValueError(
            f"`{name}` must be 2-D (rows, n_features), got shape {tuple(features.shape)}. "
            "Give one row of features per class, cluster or sample."
        )
    if like is not None and features.shape[1] != like.shape[1]:
        raise ValueError(
            f"`{name}` must have {like.shape[1]} columns as `target` has, got {features.shape[1]}. "
            "Take both from one model and layer."
        )


def check_cost(cost: Tensor) -> Tensor:
    """Return ``cost`` in float64, once known to be a finite float tensor of shape ``(n, m)``."""
    _check_floats(cost, "cost")
    if cost.ndim != 2 or cost.numel() == 0:
        raise ValueError(
            f"`cost` must be 2-D (at least 1 source row, at least 1 target column), got shape {tuple(cost.shape)}."
        )
    cost = cost.detach().double()
    if not cost.sum().isfinite() and not cost.isfinite().all():
        raise ValueError(
            f"`cost` must be finite, got {int((~cost.isfinite()).sum())} of {cost.numel()} entries with NaN or "
            "infinity. Check the features it was computed from."
        )
    return cost


def check_weights(weights: Tensor, name: str, like: Tensor) -> Tensor:
    """Return ``weights`` in float64, once known to be positive, one per row of ``like``, on its device."""
    _check_floats(weights, name)
    size, what = len(like), "source row" if name == "a" else "target"
    if weights.shape != (size,):
        raise ValueError(f"`{name}` must have shape ({size},), one weight per {what}, got {tuple(weights.shape)}.")
    weights = weights.detach().to(like.device, torch.float64)
    if not (weights.isfinite().all() and weights.min() > 0):
        raise ValueError(
            f"`{name}` must be positive and finite, got a least weight of {weights.min():.3g}. "
            f"Leave out each {what} without weight."
        )
    return weights


def check_at_least(value: float, least: float, name: str, *, infinite: bool = False) -> None:
    """Raise unless ``value`` is greater than ``least`` (at least, where an infinite value is meaningful, too)."""
    if infinite and not value >= least:
        raise ValueError(f"`{name}` must be at least {least:g} (infinity: marginal exact), got {value}.")
    if not infinite and not least < value < float("inf"):
        raise ValueError(f"`{name}` must be finite and greater than {least:g}, got {value}.")


def _check_floats(values: Tensor, name: str) -> None:
    if not isinstance(values, Tensor) or not values.is_floating_point():
        kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"`{name}` must be a floating-point torch tensor, got {kind}. Convert it with `.float()`.")
