"""The evidence of Bayesian linear regression, maximised over both precisions: see ``logme`` for the formulas."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_zoosel.metrics._spectrum import Spectrum

_GRID_STEP = 0.5  # of ln t: the terms of the evidence change on a scale of 1
_MARGIN = 37.0  # ln 1e16: so far beyond the spectrum the evidence has its limit to rounding
_NEWTON_STEPS = 80
_PERFECT_FIT = 1e-12  # least residual, as a fraction of |y|^2, where there are more samples than directions


@dataclass(frozen=True)
class Fit:
    """The maximum of the evidence of each target, every tensor but ``projected`` of shape (k,)."""

    projected: Tensor  # (r, k)  x
    ratio: Tensor  # t = alpha / beta
    beta: Tensor
    evidence: Tensor  # nats over all samples


def fit_evidence(s: Tensor, projected: Tensor, energy: Tensor, n: int) -> Fit:
    """Maximise the evidence of k targets.

    Args:
        s: Squared singular values of the features, ``(r,)``: n of them, or those above rounding.
        projected: The targets' projections on the left singular vectors, ``(r, k)``.
        energy: Squared norms of the targets, ``(k,)``, positive.
        n: Number of samples.

    Returns:
        The maximum for each target.
    """
    x2 = projected.square() * (s > 0)[:, None]
    rest = energy - x2.sum(dim=0)
    rest = torch.zeros_like(rest) if s.count_nonzero() == n else rest.maximum(_PERFECT_FIT * energy)
    log_t = _maximise(s, x2, rest, n)
    evidence, residual = _evidence(s, x2, rest, n, log_t)
    return Fit(projected, log_t.exp(), n / residual, evidence)


def log_densities_of_one_left_out(decomposed: Spectrum, fit: Fit, targets: Callable[[slice], Tensor]) -> Tensor:
    """Return ln p(y_i | the other targets) at the alpha and beta of the fit, averaged over targets, ``(n,)``.

    Args:
        decomposed: The features.
        fit: The maximum of the evidence of each target.
        targets: Gives the targets of some rows, ``(b, k)``.
    """
    kept = fit.ratio / (decomposed.values[:, None] + fit.ratio)  # (r, k)  t / (t + s)
    means = torch.empty(len(decomposed.features), dtype=torch.float64, device=decomposed.features.device)
    for rows, left in decomposed.left():
        residual = left @ (kept * fit.projected)  # (b, k)
        spare = left.square() @ kept  # (b, k)  1 - h
        if not decomposed.is_wide:  # add what lies outside the span of U
            residual += targets(rows) - left @ fit.projected
            spare += (1 - left.square().sum(dim=1, keepdim=True)).clamp_min(0)
        precision = fit.beta * spare
        log_density = 0.5 * ((precision / (2 * math.pi)).log() - (fit.beta * residual).square() / precision)
        means[rows] = log_density.mean(dim=1)
    return means


def _evidence(s: Tensor, x2: Tensor, rest: Tensor, n: int, log_t: Tensor) -> tuple[Tensor, Tensor]:
    """Return L and Q at one ``log_t`` per target, each of shape (k,)."""
    t = log_t.exp()
    residual = (x2 * (t / (t + s[:, None]))).sum(dim=0) + rest
    log_det = torch.log1p(s[:, None] / t).sum(dim=0)
    return 0.5 * (n * (n / residual).log() - log_det - n - n * math.log(2 * math.pi)), residual


def _maximise(s: Tensor, x2: Tensor, rest: Tensor, n: int) -> Tensor:
    """Return the ln t that maximises L for each target, shape (k,)."""
    span = s[s > 0].log() if s.any() else s.new_zeros(1)  # features of zeros: L is the same for every t
    first, last = span.min().item() - _MARGIN, span.max().item() + _MARGIN
    grid = torch.linspace(first, last, 2 + math.ceil((last - first) / _GRID_STEP), dtype=s.dtype, device=s.device)
    t = grid.exp()[:, None]  # (m, 1)
    values = -torch.log1p(s / t).sum(dim=1, keepdim=True) - n * (t / (t + s) @ x2 + rest).log()  # (m, k)  2 L + const
    best = values.argmax(dim=0)

    low, high, at = grid[(best - 1).clamp_min(0)], grid[(best + 1).clamp_max(len(grid) - 1)], grid[best]
    for _ in range(_NEWTON_STEPS):
        slope, curvature = _derivatives(s, x2, rest, n, at)
        low, high = torch.where(slope > 0, at, low), torch.where(slope > 0, high, at)
        newton = at - slope / curvature
        inside = (curvature < 0) & (newton > low) & (newton < high)
        step = torch.where(inside, newton, (low + high) / 2) - at
        at = at + step
        if step.abs().max() < 1e-9:
            break
    return at


def _derivatives(s: Tensor, x2: Tensor, rest: Tensor, n: int, log_t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and second derivative of 2 L in ln t, each of shape (k,)."""
    t = log_t.exp()
    w = t / (t + s[:, None])  # (r, k);  dw / d ln t = w (1 - w)
    v = s[:, None] / (t + s[:, None])
    dw = w * v
    q = (x2 * w).sum(dim=0) + rest
    dq = (x2 * dw).sum(dim=0) / q
    ddq = (x2 * dw * (v - w)).sum(dim=0) / q
    return v.sum(dim=0) - n * dq, -dw.sum(dim=0) - n * (ddq - dq.square())
