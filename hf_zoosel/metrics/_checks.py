"""Input checks shared by every metric: one place, one wording."""

import torch
from torch import Tensor

from hf_zoosel.metrics._blocks import blocks, row_slices


def check_features(features: Tensor, name: str = "features") -> Tensor:
    """Return ``features`` as they are, once known to be a finite float tensor of shape ``(n, d)``."""
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(f"`{name}` must be a floating-point torch tensor, got {kind}. Convert it with `.float()`.")
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(
            f"`{name}` must be 2-D (n_samples, at least 1 column), got shape {tuple(features.shape)}. "
            "Pool or flatten each sample to one row."
        )
    features = features.detach()
    bad = sum(_count_bad_rows(features[rows]) for rows in row_slices(features))
    if bad:
        raise ValueError(
            f"`{name}` must be finite, got {bad} of {len(features)} rows with NaN or infinity. "
            "Check the checkpoint and its preprocessing, or compute the features in float32."
        )
    return features


def _count_bad_rows(block: Tensor) -> int:
    if block.sum().isfinite():  # so is every entry, found without a temporary of the block's size
        return 0
    return int((~block.isfinite().all(dim=1)).sum())


def check_labels(labels: Tensor, rows: Tensor) -> Tensor:
    """Return labels as int64 of shape ``(n,)`` renumbered to ``0..k-1``, on the device of ``rows``."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"`labels` must be a torch tensor of integer class ids, got {kind}.")
    if labels.shape != (len(rows),):
        raise ValueError(
            f"`labels` must have shape ({len(rows)},), one per row of the first argument, got {tuple(labels.shape)}."
        )
    classes, renumbered = torch.unique(labels.to(rows.device, torch.int64), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"`labels` must contain at least 2 classes, got only class {classes.tolist()}.")
    return renumbered


def check_probs(probs: Tensor, name: str) -> Tensor:
    """Return ``probs`` as they are, once known to be ``(n, k)`` probabilities with rows summing to one."""
    probs = check_features(probs, name)
    atol = max(1e-4, torch.finfo(probs.dtype).eps)  # a bfloat16 softmax sums to 1 within its own rounding only
    for _, block in blocks(probs):
        row_sums = block.sum(dim=1)
        if block.min() < 0 or (row_sums - 1).abs().max() > atol:
            raise ValueError(
                f"`{name}` rows must be probabilities summing to 1, got a least value of {block.min():.3g} and "
                f"row sums in [{row_sums.min():.3g}, {row_sums.max():.3g}]. "
                "If these are logits, pass `logits.softmax(-1)`."
            )
    return probs
