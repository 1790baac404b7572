"""Transport under a quota: every target covered, no source above its capacity, solved exactly by POT."""

import warnings

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.transport._checks import check_cost, check_weights
from hf_zoosel.transport.plan import Plan

_MAX_PIVOTS = 10_000_000
_TOLERANCE = 1e-9  # of a total mass of 1: marginals of the network simplex are exact to rounding
_EQUAL = 1e-12  # of the largest cost: rows that differ by less are one row, whatever rounding made of them


def capacity_plan(cost: Tensor, b: Tensor, *, k: int) -> Plan:
    """Cheapest plan that gives every target exactly ``b`` and takes at most 1/``k`` of it from any one source.

    At least ``k`` sources carry mass, those of most use their full share; no regularisation, hence no choice of one.
    Equal rows of ``cost`` share alike what is taken from them, and so do equal columns what they are given by each.

    Args:
        cost: Cost of carrying a unit from source row to target column, shape ``(n, m)``, any float type.
        b: Mass wanted by each target column, shape ``(m,)``, positive.
        k: Number of sources that would be wanted if all gave alike, 1 to n.

    Returns:
        The plan, of mass ``b.sum()``.

    Raises:
        ValueError: If shapes disagree, ``cost`` is not finite, ``b`` is not positive or ``k`` not from 1 to n.
        TypeError: If ``cost`` or ``b`` is not a float tensor.
        RuntimeError: If POT does not return a plan with these marginals.

    Reference:
        Partial optimal transport with the slack in a further column, e.g. Caffarelli and McCann 2010,
        https://doi.org/10.4007/annals.2010.171.673, section 2; solved by ``ot.emd``.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 3.0]])
        >>> capacity_plan(cost, torch.ones(2), k=2).source.tolist()
        [1.0, 1.0, 0.0]
    """
    cost = check_cost(cost)
    b = check_weights(b, "b", cost.T)
    if not 1 <= k <= len(cost):
        raise ValueError(f"`k` must be from 1 to the {len(cost)} source rows, got {k}. Ask for fewer sources.")
    total, scaled = b.sum(), cost - cost.min()
    scaled = scaled / (scaled.max() or 1.0)  # the solver compares with an absolute 1e-14 or so
    rows, at, counts = _unique(scaled)
    columns, at_column, shares = _unique(rows.T.contiguous(), b / total)
    plan, gap = _solved(columns.T.cpu().numpy(), counts.cpu().numpy() / k, shares.cpu().numpy())
    whole = torch.from_numpy(plan).to(cost)
    whole = (whole / counts[:, None] / shares)[at][:, at_column]  # per source row and unit of the target's weight
    return Plan(whole.mul_(b), gap=gap)


def _unique(rows: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows that differ, which of them each row is, and the weight (by default the number) of each."""
    weights = rows.new_ones(len(rows)) if weights is None else weights
    _, at = (rows / _EQUAL).round().unique(dim=0, return_inverse=True)
    first = torch.full((int(at.max()) + 1,), len(rows), device=rows.device)
    first.scatter_reduce_(0, at, torch.arange(len(rows), device=rows.device), "amin")
    return rows[first], at, weights.new_zeros(len(first)).index_add_(0, at, weights)


def _solved(cost: np.ndarray, capacity: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the plan ``(n, m)`` with columns ``b`` (sum 1) and rows within ``capacity``, and its largest error."""
    import ot

    slack = capacity.sum() - 1
    wanted = np.append(b, slack) if slack > _TOLERANCE else b
    padded = np.column_stack([cost, np.zeros(len(cost))]) if slack > _TOLERANCE else cost
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what goes wrong is in the log, and an error below
        plan, log = ot.emd(capacity, wanted, padded, numItermax=_MAX_PIVOTS, log=True)
    gap = max(np.abs(plan.sum(axis=1) - capacity).max(), np.abs(plan.sum(axis=0) - wanted).max())
    if log["warning"] or not gap <= _TOLERANCE:
        raise RuntimeError(
            f"`ot.emd` must return a plan with the given marginals, got marginals off by {gap:.3g} and "
            f"{log['warning'] or 'no warning'}. Check the scale of the cost."
        )
    return plan[:, : len(b)], float(gap)
