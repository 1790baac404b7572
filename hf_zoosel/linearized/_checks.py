"""Input checks of kernels, residuals and labels, and the one eigendecomposition all results come from."""

import torch
from torch import Tensor

_FLOAT32_NOISE = 1e-4  # of the greatest eigenvalue: a Gram matrix summed in float32 may be so far below zero


def check_kernel(kernel: Tensor) -> Tensor:
    """Return ``kernel`` in float64, exactly symmetric, once known to be finite, square and symmetric."""
    if not isinstance(kernel, Tensor) or not kernel.is_floating_point():
        kind = kernel.dtype if isinstance(kernel, Tensor) else type(kernel).__name__
        raise TypeError(f"`kernel` must be a floating-point torch tensor, got {kind}. Compute it with `ntk`.")
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or len(kernel) == 0:
        raise ValueError(
            f"`kernel` must be square (n_samples, n_samples), got shape {tuple(kernel.shape)}. "
            "From gradients or features `g` of shape (n, p), pass `g @ g.T`."
        )
    theta = kernel.detach().double()
    _check_finite(theta, "kernel")
    asymmetry, largest = (theta - theta.T).abs().max().item(), theta.abs().max().item()
    if asymmetry > torch.finfo(kernel.dtype).eps ** 0.5 * largest:
        raise ValueError(
            f"`kernel` must be symmetric, got entries that differ from their transposes by up to {asymmetry:.3g} "
            f"where the largest is {largest:.3g}. Pass `g @ g.T` of the same samples in the same order."
        )
    return (theta + theta.T) / 2


def check_residual(residual: Tensor, n: int) -> Tensor:
    """Return ``residual`` in float64 as columns ``(n, k)``."""
    if not isinstance(residual, Tensor) or not residual.is_floating_point():
        kind = residual.dtype if isinstance(residual, Tensor) else type(residual).__name__
        raise TypeError(
            f"`residual` must be a floating-point torch tensor, got {kind}. "
            "It is targets less outputs; `signed_targets` makes targets of class labels."
        )
    if residual.ndim not in (1, 2) or len(residual) != n or residual.numel() == 0:
        raise ValueError(
            f"`residual` must have shape ({n},) or ({n}, n_outputs), one row per row of `kernel`, "
            f"got {tuple(residual.shape)}."
        )
    _check_finite(residual, "residual")
    return residual.detach().double().reshape(n, -1)


def check_labels(labels: Tensor, n: int | None = None) -> Tensor:
    """Return labels as int64 of shape ``(n,)`` renumbered to ``0..k-1``."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"`labels` must be a torch tensor of integer class ids, got {kind}.")
    if labels.ndim != 1 or (n is not None and len(labels) != n):
        expected = "(n_samples,)" if n is None else f"({n},), one per row of `kernel`"
        raise ValueError(f"`labels` must have shape {expected}, got {tuple(labels.shape)}.")
    classes, renumbered = torch.unique(labels.to(torch.int64), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"`labels` must contain at least 2 classes, got only class {classes.tolist()}.")
    return renumbered


def _check_finite(values: Tensor, name: str) -> None:
    bad = int((~values.isfinite()).sum())
    if bad:
        raise ValueError(
            f"`{name}` must be finite, got {bad} of {values.numel()} entries with NaN or infinity. "
            "Check the checkpoint and its preprocessing, or compute in float32 or float64."
        )


def eigen(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues ``(n,)``, ascending, and eigenvectors ``(n, n)``; what is rounding of zero is zero."""
    theta = check_kernel(kernel)
    values, vectors = torch.linalg.eigh(theta)
    least, greatest = values[0].item(), values[-1].item()
    floor = max(100, len(theta)) * torch.finfo(kernel.dtype).eps * max(abs(least), abs(greatest))
    if -least > max(floor, _FLOAT32_NOISE * greatest):
        raise ValueError(
            f"`kernel` must be positive semi-definite, got a least eigenvalue of {least:.3g} where the greatest "
            f"is {greatest:.3g}. Pass a Gram matrix, `g @ g.T`."
        )
    return torch.where(values > max(floor, -least), values, 0.0), vectors  # below zero is how large rounding is
