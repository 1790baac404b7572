"""Batch spectral shrinkage: let go of the weakest directions of the features (Chen et al. 2019)."""

import torch
from torch import Tensor

from hf_zoosel.objectives._precision import at_least_float32


def bss(features: Tensor, *, k: int = 1) -> Tensor:
    """Sum of the k smallest squared singular values of a batch of features.

    They are eigenvalues of F F' or F' F, whichever is smaller, in float64. No singular vectors are formed, whose
    gradients blow up where singular values meet; those of eigenvalues alone are finite everywhere.

    Args:
        features: Input of the classifier for one batch of target images, F, shape ``(n, d)``.
        k: How many of the min(n, d) singular values.

    Returns:
        sum_{i=1..k} sigma_{-i}^2, a scalar of at least float32, >= 0. NaN if a feature is not finite, as any other
        loss would be, so that one check of the total loss finds it.

    Raises:
        ValueError: If ``features`` is not 2-D, or ``k`` not between 1 and min(n, d).

    Reference:
        Chen et al., "Catastrophic forgetting meets negative transfer: batch spectral shrinkage for safe transfer
        learning", NeurIPS 2019; to be multiplied by its eta (0.001, with k = 1). Deviations: eigenvalues
        instead of an SVD, the same numbers. With many processes each takes the rows it has, not the whole batch.

    Example:
        >>> bss(torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
        tensor(4.)
    """
    if features.ndim != 2:
        raise ValueError(
            f"`features` must be 2-D (n_samples, n_features), got shape {tuple(features.shape)}. "
            "Pool or flatten each sample to one row."
        )
    if not 1 <= k <= min(features.shape):
        raise ValueError(
            f"`k` must be between 1 and min(n, d) = {min(features.shape)} for features of shape "
            f"{tuple(features.shape)}, got {k}. Use a larger batch or a smaller k."
        )
    rows = at_least_float32(features)
    if rows.device.type == "mps":  # which has no float64
        rows = rows.cpu()
    rows = (rows if rows.shape[0] <= rows.shape[1] else rows.T).double()
    gram = rows @ rows.T
    broken = ~gram.isfinite().all()  # eigvalsh would raise
    smallest = torch.linalg.eigvalsh(gram.masked_fill(broken, 0))[:k]  # in ascending order
    penalty = smallest.clamp(min=0).sum()  # rounding leaves some at -1e-17
    wanted = torch.promote_types(features.dtype, torch.float32)
    return penalty.masked_fill(broken, torch.nan).to(wanted).to(features.device)
