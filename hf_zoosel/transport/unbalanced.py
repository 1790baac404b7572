"""Unbalanced entropic transport by POT, whose answer is checked before it is believed."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_zoosel.transport._checks import check_cost, check_weights
from hf_zoosel.transport._logarithms import plan_in_logarithms
from hf_zoosel.transport._scaling import Scaling
from hf_zoosel.transport.plan import Plan

_LARGEST_EXPONENT = 600.0  # exp(-745) is 0 in float64: beyond, rows of the kernel vanish and POT returns what is left
_BELIEVED = 10  # times the tolerance: POT measures the change of u and v against the largest of them
_LEAST_MASS = 1e-9  # of the mass wanted

Array = NDArray[np.float64]


def unbalanced_plan(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    reg: float = 1.0,
    reg_source: float = 1.0,
    reg_target: float = 100.0,
    max_iterations: int = 1000,
    tolerance: float = 1e-6,
) -> Plan:
    """Minimise <cost, P> + reg sum P (ln P - 1) + reg_source KL(P 1 | a) + reg_target KL(P^T 1 | b).

    Generalised Sinkhorn iterations by POT, started from ones as the authors do. Where the kernel exp(-cost / reg)
    would vanish in float64, or POT does not converge, Newton's method solves the same problem in logarithms.

    Args:
        cost: Cost of carrying a unit from source row to target column, shape ``(n, m)``, any float type. The
            authors divide the cosine distance by 0.1.
        a: Mass that each source row has to offer, shape ``(n,)``, positive; the authors' is ones.
        b: Mass wanted by each target column, shape ``(m,)``, positive; the authors' is ones.
        reg: Entropic regularisation in the unit of ``cost``, above 0.
        reg_source: Price of leaving the source marginal ``a``, at least 0; infinite for an exact marginal.
        reg_target: Price of leaving the target marginal ``b``, likewise.
        max_iterations: Most iterations of either solver.
        tolerance: Largest change of the scalings in an iteration, relative to the largest scaling, at which to stop.

    Returns:
        The plan. Where it has not converged, ``converged`` is false and a warning says so.

    Raises:
        ValueError: If shapes disagree, ``cost`` is not finite, weights or options are out of range, both marginals
            are exact and have different sums, or the plan carries next to nothing of what is wanted.
        TypeError: If ``cost``, ``a`` or ``b`` is not a float tensor.

    Warns:
        UserWarning: If the iterations end before the tolerance is met.

    Reference:
        Liu et al., "Improved Fine-Tuning by Better Leveraging Pre-Training Data", NeurIPS 2022,
        https://arxiv.org/abs/2111.12292, and the authors' script; Chizat et al., "Scaling algorithms for unbalanced
        transport problems", 2018, https://arxiv.org/abs/1607.05816. POT: ``reg_type="entropy"``.

    Example:
        >>> import torch
        >>> plan = unbalanced_plan(torch.tensor([[0.0, 9.0], [9.0, 0.0], [9.0, 9.0]]), torch.ones(3), torch.ones(2))
        >>> [round(mass, 3) for mass in plan.source.tolist()]
        [0.992, 0.992, 0.016]
    """
    cost = check_cost(cost)
    a, b = check_weights(a, "a", cost), check_weights(b, "b", cost.T)
    scaling = Scaling(reg, reg_source, reg_target, max_iterations, tolerance)
    if scaling.contraction == 1 and abs(a.sum() - b.sum()) > 1e-9 * b.sum():
        raise ValueError(
            f"`a` and `b` must have one sum where both marginals are exact, got {a.sum():.6g} and {b.sum():.6g}. "
            "Scale one of them, or give `reg_source` or `reg_target` a finite value."
        )
    least, most = cost.aminmax()
    plan = _by_pot(cost, a, b, scaling) if max(-least, most) <= _LARGEST_EXPONENT * reg else None
    plan = plan_in_logarithms(cost, a, b, scaling) if plan is None else plan
    if not plan.converged:
        warnings.warn(
            f"Unbalanced transport did not converge in {plan.n_iterations} iterations: the scalings still change by "
            f"{plan.gap:.2g}. Raise `max_iterations` or `reg`.",
            stacklevel=2,
        )
    if not plan.mass > _LEAST_MASS * b.sum():
        raise ValueError(
            f"`reg_target` must be large enough for the plan to carry mass, got {reg_target} and mass "
            f"{plan.mass:.3g} of {b.sum():.3g} wanted. Raise `reg_target`, or divide the cost by a larger scale."
        )
    return plan


def _by_pot(cost: Tensor, a: Tensor, b: Tensor, scaling: Scaling) -> Plan | None:
    """Return POT's plan, or None where it stops for numerical errors or does not converge."""
    from ot.unbalanced import sinkhorn_unbalanced

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan, log = sinkhorn_unbalanced(
            *(values.cpu().numpy() for values in (a, b, cost)),
            scaling.reg,
            (scaling.reg_source, scaling.reg_target),
            reg_type="entropy",
            numItermax=scaling.max_iterations,
            stopThr=scaling.tolerance,
            log=True,
        )
    failed = any("Numerical errors" in str(warning.message) for warning in caught)
    if failed or not log["err"] or not log["err"][-1] < scaling.tolerance:
        return None
    gap = _gap(plan, (a.cpu().numpy(), b.cpu().numpy()), (log["logu"], log["logv"]), scaling)
    if not gap <= _BELIEVED * scaling.tolerance:  # the largest scaling hid how the others still change
        return None
    return Plan(torch.from_numpy(plan).to(cost), n_iterations=len(log["err"]), gap=gap)


def _gap(plan: Array, wanted: tuple[Array, Array], logs: tuple[Array, Array], scaling: Scaling) -> float:
    """Return the largest change that one more iteration makes to log v, from products with the plan."""
    (a, b), (log_u, log_v) = wanted, logs
    with np.errstate(all="ignore"):  # a plan without mass gives no number, which is not believed
        stepped_u = scaling.source_power * (np.log(a) + log_u - np.log(plan.sum(axis=1)))
        received = np.exp(stepped_u - log_u) @ plan  # v K^T u
        stepped_v = scaling.target_power * (np.log(b) + log_v - np.log(received))
        return float(np.abs(stepped_v - log_v).max())
