"""The loss curve of linearised fine-tuning, known before any step of it is taken."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hf_zoosel.linearized._checks import check_residual, eigen

Loss = Literal["half_sum", "sum", "mean"]
Dynamics = Literal["descent", "flow"]


@dataclass(frozen=True, eq=False)
class LossCurve:
    """Loss of linearised fine-tuning as a function of time; ``predicted_loss`` makes it.

    The loss is L_t = sum_k power_k rho_k^t, one term per eigenvalue lambda_k of the kernel. With g = ``gain`` and
    eta = ``learning_rate``, rho_k is (1 - g eta lambda_k)^2 for steps of gradient descent and
    exp(-2 g eta lambda_k) for gradient flow. ``dataclasses.replace(curve, learning_rate=...)`` gives the curve at
    another learning rate, without another eigendecomposition.

    Attributes:
        eigenvalues: Of the kernel, shape ``(n,)``, ascending, at least 0; zero within rounding is zero.
        power: Part of the initial loss along each eigenvector, shape ``(n,)``, in the units of the loss.
        learning_rate: Step size of gradient descent, or the rate of gradient flow.
        gain: g, the derivative of the loss by an output over minus the residual: 1 for half the sum of squares.
        dynamics: ``"descent"``, where time counts steps, or ``"flow"``, where it is continuous.
    """

    eigenvalues: Tensor
    power: Tensor
    learning_rate: float
    gain: float
    dynamics: Dynamics

    @property
    def initial(self) -> float:
        """The loss before fine-tuning."""
        return self.power.sum().item()

    @property
    def limit(self) -> float:
        """The loss after endless fine-tuning: what lies where the kernel is zero; infinite if the steps diverge."""
        logs = self._log_decay()
        return math.inf if (logs > 0).any() else self.power[logs == 0].sum().item()

    @property
    def max_learning_rate(self) -> float:
        """Learning rate above which gradient descent diverges: 2 / (gain x greatest eigenvalue)."""
        greatest = self.gain * self.eigenvalues[-1].item()
        return 2 / greatest if greatest > 0 else math.inf

    def at(self, times: Tensor | float) -> Tensor:
        """Return the loss at the given times.

        Args:
            times: Steps of gradient descent or time of gradient flow, any shape; between two steps the curve runs
                through sum_k power_k rho_k^t.

        Returns:
            Losses in float64, of the shape of ``times``.

        Raises:
            ValueError: If a time is below 0 or not finite.
        """
        t = torch.as_tensor(times, dtype=torch.float64, device=self.power.device)
        if not (t.isfinite() & (t >= 0)).all():
            raise ValueError(f"`times` must be finite numbers of at least 0, got {times}.")
        return (t[..., None] * self._log_decay()).exp() @ self.power

    def steps_to(self, loss: float) -> float:
        """Return when the loss first is at most ``loss``.

        Args:
            loss: The loss to reach.

        Returns:
            A whole number of steps for gradient descent, a time for gradient flow (to a relative 1e-12); 0 if it
            is reached at the start; infinity if never: it is not above ``limit``, or a learning rate above
            ``max_learning_rate`` makes the loss rise before.

        Raises:
            ValueError: If ``loss`` is NaN.
        """
        if math.isnan(loss):
            raise ValueError("`loss` must be a number, got nan.")
        if self.initial <= loss:
            return 0.0
        if loss <= self.limit < math.inf:
            return math.inf
        low, high = self._bracket(loss)
        if self._loss(high) > loss:
            return math.inf
        whole = self.dynamics == "descent"
        while high - low > (1 if whole else 1e-12 * high):
            middle = (low + high) // 2 if whole else (low + high) / 2
            low, high = (middle, high) if self._loss(middle) > loss else (low, middle)
        return float(high)

    def _bracket(self, loss: float) -> tuple[float, float]:
        """Return two times, the loss above ``loss`` at the first, and at most ``loss`` or least at the second.

        The curve is convex in t: it falls, and may rise ever after. Whole numbers stay Python integers.
        """
        low, high = 0, 1
        while self._loss(high) > loss and self._falls_after(high):
            low, high = high, 2 * high
        while self._loss(high) > loss and high - low > 1:  # past the least loss, which may still be low enough
            middle = (low + high) // 2
            low, high = (middle, high) if self._falls_after(middle) else (low, middle)
        return (0, high) if self._loss(low) <= loss else (low, high)

    def _loss(self, t: float) -> float:
        return self.at(float(t)).item()

    def _falls_after(self, t: float) -> bool:
        logs = self._log_decay()
        return ((logs * float(t)).exp() * logs.expm1() @ self.power).item() < 0  # L_{t+1} - L_t

    def _log_decay(self) -> Tensor:
        """Return ln rho of each term, shape (n,); terms without power count as constant."""
        rate = self.gain * self.learning_rate * self.eigenvalues
        if self.dynamics == "flow":
            logs = -2 * rate
        else:
            logs = 2 * torch.where(rate < 1, torch.log1p(-rate), torch.log1p(rate - 2))  # ln (1 - rate)^2
        logs = logs.clamp_min(-1e300)  # ln 0, so that 0 steps of it are 0
        return torch.where(self.power > 0, logs, 0.0)


def predicted_loss(
    kernel: Tensor,
    residual: Tensor,
    *,
    learning_rate: float,
    loss: Loss = "half_sum",
    dynamics: Dynamics = "descent",
) -> LossCurve:
    r"""Predict the training loss of fine-tuning with a squared error, from the kernel at the initial weights.

    The network linearised at its weights has residual r_t = (I - g eta Theta)^t r_0 after t steps of full-batch
    gradient descent (no momentum, no weight decay), and r_t = exp(-g eta t Theta) r_0 under gradient flow. So in
    the eigenbasis of Theta, with c the factor of the loss and g = 2 c,

        L_t = c sum_k (v_k . r_0)^2 (1 - g eta lambda_k)^{2 t}          (descent)
        L_t = c sum_k (v_k . r_0)^2 exp(-2 g eta lambda_k t)            (flow)

    It is exact for a model linear in its parameters; for others it holds while they move little: at first, and
    longer for wide networks. Gradient descent needs the kernel of all parameters that are trained.

    Args:
        kernel: Theta, shape ``(n_samples, n_samples)``, symmetric and positive semi-definite, as of ``ntk``.
        residual: Targets less outputs at the initial weights, shape ``(n_samples,)``, or ``(n_samples, k)`` for k
            outputs that each have this kernel and share no other, such as the rows of a linear head. Outputs that
            share parameters need the kernel of all pairs, ``(n_samples k, n_samples k)``, and a flat residual.
        learning_rate: eta, above 0.
        loss: ``"half_sum"`` is 1/2 sum r^2, ``"sum"`` is sum r^2, ``"mean"`` is that over the number of entries of
            r, as ``torch.nn.MSELoss`` has it.
        dynamics: ``"descent"`` counts steps; ``"flow"`` is the limit of small steps, its time t being t / h steps
            at the learning rate h eta.

    Returns:
        The curve, from one eigendecomposition; O(n) for each time asked of it.

    Raises:
        ValueError: If shapes disagree, values are not finite, the kernel is not symmetric and positive
            semi-definite, ``learning_rate`` is not above 0, or a name is unknown.
        TypeError: If the kernel or the residual is not of floats.

    Reference:
        Deshpande et al., "A linearized framework and a new benchmark for model selection for fine-tuning", 2021,
        Eq. 1. https://arxiv.org/abs/2102.00084 It prints L = r^T exp(-2 eta Theta t) r for L = sum r^2, whose
        gradient flow has exp(-4 eta Theta t); for L = 1/2 sum r^2 the exponent is right and a factor 1/2 is
        missing. Here each loss has its own constants. Steps of finite size are ours.

    Example:
        >>> kernel, residual = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([2.0, 2.0])
        >>> curve = predicted_loss(kernel, residual, learning_rate=0.25)
        >>> [round(value, 4) for value in curve.at(torch.tensor([0, 1, 2])).tolist()]  # 2 (1/2)^2t + 2 (3/4)^2t
        [4.0, 1.625, 0.7578]
        >>> curve.steps_to(1.0), curve.max_learning_rate
        (2.0, 1.0)
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"`learning_rate` must be a finite number above 0, got {learning_rate}.")
    if dynamics not in ("descent", "flow"):
        raise ValueError(f"`dynamics` must be 'descent' or 'flow', got {dynamics!r}.")
    values, vectors = eigen(kernel)
    r = check_residual(residual, len(kernel)).to(values.device)
    factors = {"half_sum": 0.5, "sum": 1.0, "mean": 1 / r.numel()}
    if loss not in factors:
        raise ValueError(f"`loss` must be one of {', '.join(map(repr, factors))}, got {loss!r}.")
    power = factors[loss] * (vectors.T @ r).square().sum(dim=1)
    return LossCurve(values, power, learning_rate, gain=2 * factors[loss], dynamics=dynamics)
