"""Unbalanced transport in the logarithmic domain by Newton's method: for costs that are large beside ``reg``."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_zoosel.transport._scaling import Scaling
from hf_zoosel.transport.plan import Plan

_FINEST_START = 20  # largest cost over reg from which no solution of a larger reg need lead the way
_ROUGH = 0.1  # change at which such a solution will do
_HALVINGS = 10
_MOST_CONTRACTION = (
    1 - 1e-6
)  # where both marginals are exact, log v has a free constant and Newton's matrix no inverse


def plan_in_logarithms(cost: Tensor, a: Tensor, b: Tensor, scaling: Scaling) -> Plan:
    """Return the plan from iterations that no magnitude of the cost can make vanish.

    A generalised Sinkhorn iteration is a map T of log v whose derivative is ``contraction`` times C^T R, where R and C
    are the plan with rows and columns of sum 1. Newton's step solves (1 - contraction C^T R) step = T(log v) - log v.
    """
    regs, largest = [scaling.reg], cost.abs().max().item()
    while _FINEST_START * regs[0] < largest:
        regs.insert(0, 4 * regs[0])
    potential, n_iterations = torch.zeros_like(b), 0
    for reg in regs:
        last, left = reg == scaling.reg, max(1, scaling.max_iterations - n_iterations)
        problem = _Problem(cost, a, b, replace(scaling, reg=reg, max_iterations=left))
        point, used = problem.solved(potential / reg, scaling.tolerance if last else _ROUGH)
        potential, n_iterations = reg * point.log_v, n_iterations + used
    plan = (problem.log_kernel + point.log_u[:, None]).add_(point.log_v).exp_()
    return Plan(plan, n_iterations, point.gap < scaling.tolerance, point.gap)


@dataclass(frozen=True)
class _Point:
    log_v: Tensor  # (m,)
    log_u: Tensor  # (n,)
    change: Tensor  # (m,)  of log v by an iteration

    @property
    def gap(self) -> float:
        return self.change.abs().max().item()


class _Problem:
    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, scaling: Scaling) -> None:
        self.log_kernel, self.log_a, self.log_b, self.scaling = cost / -scaling.reg, a.log(), b.log(), scaling

    def solved(self, log_v: Tensor, tolerance: float) -> tuple[_Point, int]:
        """Return where an iteration changes less than ``tolerance``, or what there is, and the iterations used."""
        point, used = self.at(log_v), 1
        while point.gap >= tolerance and used < self.scaling.max_iterations:
            point, more = self.next(point)
            used += more
        return point, used

    def at(self, log_v: Tensor) -> _Point:
        log_u = self.scaling.source_power * (self.log_a - (self.log_kernel + log_v).logsumexp(dim=1))
        received = (self.log_kernel + log_u[:, None]).logsumexp(dim=0)
        return _Point(log_v, log_u, self.scaling.target_power * (self.log_b - received) - log_v)

    def next(self, point: _Point) -> tuple[_Point, int]:
        """Return a point of less change, by as much of Newton's step as serves, and the iterations it took."""
        step = self.newton_step(point)
        for halvings in range(_HALVINGS):
            part = 0.5**halvings
            new = self.at(point.log_v + part * step)
            if new.gap <= (1 - part / 4) * point.gap:
                return new, halvings + 1
        return self.at(point.log_v + point.change), _HALVINGS + 1

    def newton_step(self, point: _Point) -> Tensor:
        rows = (self.log_kernel + point.log_v).softmax(dim=1)
        columns = (self.log_kernel + point.log_u[:, None]).softmax(dim=0)
        matrix = (columns.T @ rows).mul_(-min(self.scaling.contraction, _MOST_CONTRACTION))
        matrix.diagonal().add_(1)
        return torch.linalg.solve(matrix, point.change)
