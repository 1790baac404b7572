"""Checks of rows of logits or probabilities and of the class ids that go with them."""

import torch
from torch import Tensor


def check_rows(rows: Tensor, name: str) -> Tensor:
    """Return ``rows`` detached, once known to be a finite float tensor ``(n, k)`` with at least one entry."""
    if not isinstance(rows, Tensor) or not rows.is_floating_point():
        kind = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
        raise TypeError(f"`{name}` must be a floating-point torch tensor, got {kind}. Convert it with `.float()`.")
    if rows.ndim != 2 or rows.numel() == 0:
        raise ValueError(f"`{name}` must be 2-D, at least one row and one column, got shape {tuple(rows.shape)}.")
    bad = int((~rows.isfinite().all(dim=1)).sum())
    if bad:
        raise ValueError(
            f"`{name}` must be finite, got {bad} of {len(rows)} rows with NaN or infinity. "
            "Check the checkpoint and its preprocessing, or compute it in float32."
        )
    return rows.detach()


def check_probabilities(probs: Tensor, name: str) -> Tensor:
    """Return ``probs`` detached, once known to be rows of probabilities up to the rounding of their own type."""
    probs = check_rows(probs, name)
    atol = max(1e-4, torch.finfo(probs.dtype).eps)  # a bfloat16 softmax sums to 1 within its own rounding only
    sums = probs.double().sum(dim=1)
    if probs.min() < 0 or (sums - 1).abs().max() > atol:
        raise ValueError(
            f"`{name}` rows must be probabilities summing to 1, got a least value of {probs.min():.3g} and "
            f"row sums in [{sums.min():.3g}, {sums.max():.3g}]. If these are logits, pass `logits.softmax(-1)`."
        )
    return probs


def check_class_ids(labels: Tensor, rows: Tensor, name: str, n_classes: int | None = None) -> Tensor:
    """Return ``labels`` as int64 ``(n,)`` on the device of ``rows``, once known to be ids from 0 to below a limit."""
    if not isinstance(labels, Tensor) or labels.dtype.is_floating_point or labels.dtype.is_complex:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"`{name}` must be a torch tensor of integer class ids, got {kind}.")
    if labels.shape != (len(rows),):
        raise ValueError(f"`{name}` must have shape ({len(rows)},), one per row, got {tuple(labels.shape)}.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (n_classes is not None and high >= n_classes):
        limit = "at least 0" if n_classes is None else f"in 0..{n_classes - 1}"
        raise ValueError(
            f"`{name}` must be class ids {limit}, got ids from {low} to {high}. Number the classes from 0."
        )
    return labels.to(rows.device, torch.int64)
