"""Transport whose target marginal is exact and whose source is free: a softmax, in closed form."""

from torch import Tensor

from hf_zoosel.transport._checks import check_at_least, check_cost, check_weights
from hf_zoosel.transport.plan import Plan


def semi_relaxed_plan(cost: Tensor, b: Tensor, *, reg: float = 1.0) -> Plan:
    """Minimise <cost, P> + ``reg`` sum P ln P over plans that give every target exactly ``b``.

    Every target asks the source on its own: P_ij = b_j softmax_i(-cost_ij / ``reg``). It is unbalanced transport
    with no weight on the source marginal and an infinite one on the target's.

    Args:
        cost: Cost of carrying a unit from source row to target column, shape ``(n, m)``, any float type.
        b: Mass wanted by each target column, shape ``(m,)``, positive.
        reg: Entropic regularisation in the unit of ``cost``, above 0.

    Returns:
        The plan, of mass ``b.sum()``.

    Raises:
        ValueError: If shapes disagree, ``cost`` is not finite, or ``b`` or ``reg`` is not positive.
        TypeError: If ``cost`` or ``b`` is not a float tensor.

    Reference:
        The limit of Liu et al. 2022, https://arxiv.org/abs/2111.12292, for source weight 0 and target weight infinity.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[0.0, 9.0], [0.0, 0.0]])
        >>> [round(mass, 4) for mass in semi_relaxed_plan(cost, torch.ones(2)).source.tolist()]
        [0.5001, 1.4999]
    """
    cost = check_cost(cost)
    b = check_weights(b, "b", cost.T)
    check_at_least(reg, 0, "reg")
    return Plan((cost / -reg).softmax(dim=0).mul_(b))
