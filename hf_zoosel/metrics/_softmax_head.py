"""The softmax regression of the labels with a quadratic penalty, to the last digits, by Newton's method.

Classes come first, (k, r) and (k, n): products with the smaller matrix on the left take two thirds of the time.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_NEWTON_STEPS = 100  # ten are usual; a penalty of almost nothing on separable classes needs one per factor of e
_SOLVED = 1e-10  # Newton decrement that is left, in units of the loss where that is between 1e-6 and 1
_NEAR = 1e-5  # Newton decrement whose square is that small: one step more, if it is accurate, is enough
_FINEST = 2e-5  # relative accuracy of one Newton step, within reach of products in float32
_MOST_PRODUCTS = 200  # per Newton step
_LEAST_LENGTH = 1e-6
_CERTAIN = 1e-3  # 1 - sum p^2: below it p (1 - p) in float32 is mostly rounding


@dataclass(frozen=True)
class SoftmaxHead:
    """The weights ``(k, r)``, ln p of every class ``(k, n)``, and whether they are the optimum."""

    weights: Tensor
    log_probs: Tensor
    converged: bool


@dataclass(frozen=True)
class _Problem:
    """Inputs (n, r), labels (n,) and the penalty (r,) on each input's squared weights."""

    inputs: Tensor
    y: Tensor
    penalty: Tensor

    def loss(self, weights: Tensor) -> tuple[float, Tensor]:
        """Return mean cross-entropy + sum(penalty weights^2) / 2, and ln p."""
        log_probs = (weights @ self.inputs.T).log_softmax(dim=0)
        cross_entropy = -log_probs.gather(0, self.y[None]).mean()
        return (cross_entropy + 0.5 * (self.penalty * weights.square()).sum()).item(), log_probs

    def gradient(self, weights: Tensor, probs: Tensor) -> Tensor:
        residual = probs.clone()
        residual[self.y, torch.arange(len(self.y), device=self.y.device)] -= 1
        slopes = residual @ self.inputs / len(self.y) + self.penalty * weights
        return slopes - slopes.mean(dim=0)  # zero but for rounding, which no curvature would bound

    def times_hessian(self, probs: Tensor, direction: Tensor) -> Tensor:
        moved = probs * (direction @ self.inputs.T)  # (k, n)
        moved -= probs * moved.sum(dim=0)
        return moved @ self.inputs / len(self.y) + self.penalty * direction


def fit_softmax_head(inputs: Tensor, y: Tensor, penalty: Tensor) -> SoftmaxHead:
    """Fit the head on ``inputs`` (n, r) in float64 with a ``penalty`` (r,) on each input's squared weights.

    Newton steps, each solved by conjugate gradients with the diagonal of the Hessian at uniform curvature
    as preconditioner: nearly right where the columns are orthogonal. Gradients are in float64, products with
    the Hessian in float32 while that will do: they decide how fast the minimum is reached, not where it is.
    """
    problem = _Problem(inputs, y, penalty)
    low = _Problem(inputs.float(), y, penalty.float())
    squares = inputs.square().mean(dim=0)
    weights = inputs.new_zeros(int(y.max()) + 1, inputs.shape[1])
    loss, log_probs = problem.loss(weights)
    for _ in range(_NEWTON_STEPS):
        probs = log_probs.exp()
        gradient = problem.gradient(weights, probs)
        curvature = (probs - probs.square()).mean().clamp_min(torch.finfo(torch.float32).tiny)
        certain = 1 - probs.square().sum(dim=0).mean() < _CERTAIN
        for products in [problem] if certain else [low, problem]:
            step, error = _newton_step(products, probs, gradient, squares * curvature + problem.penalty)
            slope = (gradient * step).sum().item()  # minus the squared decrement
            if slope < 0:
                break
        length = _length(problem, weights, step, (loss, slope))
        weights = weights + length * step
        loss, log_probs = problem.loss(weights)
        if error**2 * abs(slope) <= _SOLVED**2 * min(1.0, max(1e-6, loss)):
            return SoftmaxHead(weights, log_probs, converged=True)
    return SoftmaxHead(weights, log_probs, converged=False)


def _length(problem: _Problem, weights: Tensor, step: Tensor, before: tuple[float, float]) -> float:
    """Return 1, halved until the loss falls by a tenth of what its slope says, up to rounding."""
    loss, slope = before
    length = 1.0
    while length > _LEAST_LENGTH:
        allowed = loss + 0.1 * length * slope + 1e-13 * abs(loss)
        if -slope < 1e-8 or problem.loss(weights + length * step)[0] <= allowed:  # so near, the full step is right
            break
        length /= 2
    return length


def _newton_step(problem: _Problem, probs: Tensor, gradient: Tensor, diagonal: Tensor) -> tuple[Tensor, float]:
    """Solve Hessian @ step = -gradient, to 0.1 far from the optimum, ever better on the way; also say how well."""
    scale = (gradient.square() / diagonal).sum().sqrt().item()  # about the decrement
    if scale == 0:
        return torch.zeros_like(gradient), 0.0
    accuracy = max(_FINEST, min(0.1, math.sqrt(scale) if scale > _NEAR else 0.2 * _SOLVED / scale))
    kind = problem.inputs.dtype
    probs, diagonal = probs.to(kind), diagonal.to(kind)
    left = (-gradient / scale).to(kind)  # scaled: float32 has no room for 1e-10 to the fourth
    step, direction = torch.zeros_like(left), left / diagonal
    remains = (left * direction).sum()
    for _ in range(_MOST_PRODUCTS):
        product = problem.times_hessian(probs, direction)
        length = remains / (direction * product).sum()
        step, left = step + length * direction, left - length * product
        before, remains = remains, (left * left / diagonal).sum()
        if remains <= accuracy**2:
            break
        direction = left / diagonal + (remains / before) * direction
    return step.double() * scale, max(accuracy, remains.sqrt().item())  # what remains may be 0 by rounding
