"""The fixed point of generalised Sinkhorn iterations, as a map of the logarithms of the target's scalings alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_zoosel.transport._checks import check_at_least

_DEPTH = 8  # past iterates that one extrapolation uses
_ASTRAY = 10  # times the least change seen so far


@dataclass(frozen=True)
class Scaling:
    """Options of an unbalanced problem and of its iterations, checked."""

    reg: float
    reg_source: float
    reg_target: float
    max_iterations: int
    tolerance: float

    def __post_init__(self) -> None:
        check_at_least(self.reg, 0, "reg")
        check_at_least(self.reg_source, 0, "reg_source", infinite=True)
        check_at_least(self.reg_target, 0, "reg_target", infinite=True)
        check_at_least(self.max_iterations, 0, "max_iterations")
        check_at_least(self.tolerance, 0, "tolerance")

    @property
    def source_power(self) -> float:
        """Exponent of the source's update u = (a / Kv)^power."""
        return _power(self.reg_source, self.reg)

    @property
    def target_power(self) -> float:
        """Exponent of the target's update v = (b / K^T u)^power."""
        return _power(self.reg_target, self.reg)

    @property
    def contraction(self) -> float:
        """Factor by which an iteration shrinks differences of log v at least; 1 where both marginals are exact."""
        return self.source_power * self.target_power

    @property
    def shift(self) -> float:
        """What all further iterations add to the mean change of log v that one makes, relative to it."""
        return self.contraction / (1 - self.contraction) if self.contraction < 1 else 0.0


def _power(reg_marginal: float, reg: float) -> float:
    return 1.0 if reg_marginal == float("inf") else reg_marginal / (reg_marginal + reg)


@dataclass(frozen=True)
class FixedPoint:
    """Where the iterations ended: the last log v that ``step`` was applied to."""

    log_v: Tensor  # (m,)
    n_iterations: int
    converged: bool
    gap: float  # largest |step(log_v) - log_v|


def solve_scaling(step: Callable[[Tensor], Tensor], start: Tensor, scaling: Scaling) -> FixedPoint:
    """Return where ``step``, one iteration as a map of log v ``(m,)``, changes nothing.

    ``step`` turns a shift t of log v into a shift by ``contraction`` times t, so what an endless number of steps would
    add to their common part is known after one. What remains is extrapolated from the last iterates, as in Anderson
    1965, https://doi.org/10.1145/321296.321305 (type II, Walker and Ni 2011). An extrapolation that goes astray is
    forgotten: a plain step from the best iterate cannot.
    """
    past: list[tuple[Tensor, Tensor]] = []
    log_v, from_best, least = start, start, float("inf")
    for n_iterations in range(1, scaling.max_iterations + 1):
        stepped = step(log_v)
        change = stepped - log_v
        gap = change.abs().max().item()
        if gap < scaling.tolerance or n_iterations == scaling.max_iterations:
            break
        if gap < least:
            least, from_best = gap, stepped
        if gap > _ASTRAY * least:
            past, log_v = [], from_best
        else:
            past = [*past[-_DEPTH:], (log_v, change + scaling.shift * change.mean())]
            log_v = _extrapolated(past)
    return FixedPoint(log_v, n_iterations, gap < scaling.tolerance, gap)


def _extrapolated(past: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the next iterate from the past ones and the change that each asked for."""
    (log_v, change), earlier = past[-1], past[:-1]
    if not earlier:
        return log_v + change
    changes = torch.stack([change - other for _, other in earlier], dim=1)  # (m, past)
    steps = torch.stack([log_v - other for other, _ in earlier], dim=1)
    weights = torch.linalg.lstsq(changes.cpu(), change[:, None].cpu(), driver="gelsd").solution.to(change.device)
    return log_v + change - ((steps + changes) @ weights)[:, 0]
