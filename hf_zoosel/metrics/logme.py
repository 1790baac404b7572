"""LogME: the evidence of a Bayesian linear model of the labels on the features."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hf_zoosel.metrics._checks import check_features, check_labels
from hf_zoosel.metrics._spectrum import Spectrum, spectrum

_GRID_STEP = 0.5  # of ln t: the terms of the evidence change on a scale of 1
_MARGIN = 37.0  # ln 1e16: so far beyond the spectrum the evidence has its limit to rounding
_NEWTON_STEPS = 80
_PERFECT_FIT = 1e-12  # least residual, as a fraction of |y|^2, where there are more samples than directions


def logme(features: Tensor, labels: Tensor) -> float:
    r"""Log of the maximum evidence: how probable are the labels under a linear model of the features?

    For the column y of each class (1 for its samples, 0 for others), Bayesian linear regression on the features F
    has y ~ N(0, I / beta + F F^T / alpha). The log density is maximised over alpha and beta, divided by the number
    of samples and averaged over classes. The best beta is n / Q(t) for any ratio t = alpha / beta, so with s_k the
    squared singular values of F and x_k the projections of y on its left singular vectors one maximises

        L(t) = 1/2 sum_k ln(t / (t + s_k)) + n/2 ln(n / Q(t)) - n/2 - n/2 ln 2 pi
        Q(t) = sum_k x_k^2 t / (t + s_k) + |y|^2 - |x|^2

    over ln t, for all classes at once: a grid, then Newton steps within the best bracket. It is exact on both sides
    of n = d and for any scale of F. Both limits, t -> 0 (interpolation, n <= d) and t -> infinity (no signal), are
    finite and reached to rounding. A residual of zero with fewer directions than samples has unbounded evidence:
    residuals count as at least 1e-12 of |y|^2 there, which bounds the score near 14 nats.

    Args:
        features: Penultimate features of the target samples, shape ``(n_samples, n_features)``, any float type;
            not centred, as in the paper; sums are in float64.
        labels: Target class ids, shape ``(n_samples,)``, any integers.

    Returns:
        Score in nats per sample; higher is better. Compare models on one sample of one target only.

    Raises:
        ValueError: If shapes disagree, features are not finite, or fewer than two classes are present.
        TypeError: If ``features`` are not floats or ``labels`` not integers.

    Reference:
        You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021,
        Algorithm 1, https://arxiv.org/abs/2102.11005. The maximum is found directly instead of by the
        fixed-point iteration, and no epsilon enters; the authors' later code lacks (D - k)/2 ln alpha for n < d.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.1], [0.9, 0.0], [0.1, 1.0], [0.0, 0.8], [0.2, 1.1]])
        >>> round(logme(features, torch.tensor([0, 0, 1, 1, 1])), 4)
        -0.0962
    """
    x, y = check_features(features), check_labels(labels, features)
    return _fit(spectrum(x), y).evidence.mean().item() / len(y)


def logme_influence(features: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Return ``logme`` and each sample's influence on it, ``(n,)`` float64: what leaving it out takes away.

    That is ln p(y_i | the other labels), averaged over classes, at the alpha and beta of all samples (they are at
    their maximum, so moving them changes nothing to first order). With r the residual and h the leverage of the
    posterior mean, it is 1/2 ln(beta (1 - h_i) / 2 pi) - beta/2 r_i^2 / (1 - h_i).

    The derivative in a continuous weight differs from it by terms in h_i and is no use for n < d: as alpha / beta
    goes to 0 it vanishes for every sample, whatever their number, and would give intervals of no width.
    """
    x, y = check_features(features), check_labels(labels, features)
    decomposed = spectrum(x)
    fit, n, k = _fit(decomposed, y), len(y), int(y.max()) + 1
    kept = fit.ratio / (decomposed.values[:, None] + fit.ratio)  # (r, k)  t / (t + s)

    influence = torch.empty(n, dtype=torch.float64, device=y.device)
    for rows, left in decomposed.left():
        residual = left @ (kept * fit.projected)  # (b, k)
        spare = left.square() @ kept  # (b, k)  1 - h
        if not decomposed.is_wide:  # add what lies outside the span of U
            residual += one_hot(y[rows], k) - left @ fit.projected
            spare += (1 - left.square().sum(dim=1, keepdim=True)).clamp_min(0)
        precision = fit.beta * spare
        log_density = 0.5 * ((precision / (2 * math.pi)).log() - (fit.beta * residual).square() / precision)
        influence[rows] = log_density.mean(dim=1)
    return fit.evidence.mean().item() / n, influence


@dataclass(frozen=True)
class _Fit:
    """The maximum of the evidence of each class, every tensor but ``projected`` of shape (k,)."""

    projected: Tensor  # (r, k)  x
    ratio: Tensor  # t = alpha / beta
    beta: Tensor
    evidence: Tensor  # nats over all samples


def _fit(decomposed: Spectrum, y: Tensor) -> _Fit:
    s, projected, counts, n = decomposed.values, decomposed.project(y), y.bincount().double(), len(y)
    x2 = projected.square() * (s > 0)[:, None]
    rest = counts - x2.sum(dim=0)  # |y|^2 = n_c
    rest = torch.zeros_like(rest) if s.count_nonzero() == n else rest.maximum(_PERFECT_FIT * counts)
    log_t = _maximise(s, x2, rest, n)
    evidence, residual = _evidence(s, x2, rest, n, log_t)
    return _Fit(projected, log_t.exp(), n / residual, evidence)


def _evidence(s: Tensor, x2: Tensor, rest: Tensor, n: int, log_t: Tensor) -> tuple[Tensor, Tensor]:
    """Return L and Q at one ``log_t`` per class, each of shape (k,)."""
    t = log_t.exp()
    residual = (x2 * (t / (t + s[:, None]))).sum(dim=0) + rest
    log_det = torch.log1p(s[:, None] / t).sum(dim=0)
    return 0.5 * (n * (n / residual).log() - log_det - n - n * math.log(2 * math.pi)), residual


def _maximise(s: Tensor, x2: Tensor, rest: Tensor, n: int) -> Tensor:
    """Return the ln t that maximises L for each class, shape (k,)."""
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
