"""Exact optimal transport by POT, whose answer is checked before it is believed."""

import warnings

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_MAX_PIVOTS = 10_000_000
_TOLERANCE = 1e-9  # of a total mass of 1: marginals of the network simplex are exact to rounding


def exact_plan(cost: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the plan ``(n, m)`` with marginals ``a (n,)`` and ``b (m,)`` of least total cost.

    Raises:
        RuntimeError: If the solver warns, or returns a plan with other marginals than ``a`` and ``b``.
    """
    import ot

    cost = cost / (cost.max() or 1.0)  # the solver compares with an absolute 1e-14 or so
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what goes wrong is in the log, and an error below
        plan, log = ot.emd(a, b, cost, numItermax=_MAX_PIVOTS, log=True)
    off = max(np.abs(plan.sum(axis=1) - a).max(), np.abs(plan.sum(axis=0) - b).max())
    if log["warning"] or not off <= _TOLERANCE:
        raise RuntimeError(
            f"`ot.emd` must return a plan of mass 1 with the given marginals, got mass {plan.sum():.6g}, marginals "
            f"off by {off:.3g} and {log['warning'] or 'no warning'}. Check the scale of the features."
        )
    return plan


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return ``|x_i - y_j|^2``, shape ``(n, m)``, for float64 points ``(n, d)`` and ``(m, d)``."""
    centre = y.mean(dim=0)  # a common mean would cost |x|^2 + |y|^2 - 2 x.y its digits
    x, y = x - centre, y - centre
    squares = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1)
    return squares.sub_(2 * x @ y.T).clamp_min_(0)
