"""``Plan``: how much each source row carries to each target column, and how far the solver came."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """A transport plan that has been checked: finite, nowhere negative, with mass.

    Attributes:
        plan: Mass carried from each source row to each target column, shape ``(n, m)`` float64.
        n_iterations: Iterations of the solver; 0 for a closed form or an exact solver.
        converged: Whether the solver met its tolerance.
        gap: How far the plan is from its conditions of optimality: the largest change that one more iteration makes
            to the logarithm of a target's scaling; for an exact solver the largest error of a marginal.

    Raises:
        ValueError: If the plan is not finite, is negative somewhere or carries nothing.

    Example:
        >>> import torch
        >>> plan = Plan(torch.tensor([[0.5, 0.0], [0.25, 0.25]]))
        >>> plan.mass, plan.source.tolist(), plan.target.tolist()
        (1.0, [0.5, 0.5], [0.75, 0.25])
    """

    plan: Tensor
    n_iterations: int = 0
    converged: bool = True
    gap: float = 0.0

    def __post_init__(self) -> None:
        least, mass = self.plan.min().item(), self.mass
        if not (least >= 0 and 0 < mass < float("inf")):
            raise ValueError(
                f"`plan` must be finite, nowhere negative and carry mass, got a least entry of {least:.3g} and mass "
                f"{mass:.3g}. Raise `reg`, or divide the cost by a larger scale."
            )

    @property
    def source(self) -> Tensor:
        """Mass that each source row gives, shape ``(n,)``: its importance."""
        return self.plan.sum(dim=1)

    @property
    def target(self) -> Tensor:
        """Mass that each target column receives, shape ``(m,)``."""
        return self.plan.sum(dim=0)

    @property
    def mass(self) -> float:
        """Total mass."""
        return self.plan.sum().item()

    def cost(self, cost: Tensor) -> float:
        """Return the total cost of transport, in the unit of ``cost (n, m)`` times mass."""
        if cost.shape != self.plan.shape:
            raise ValueError(f"`cost` must have the plan's shape {tuple(self.plan.shape)}, got {tuple(cost.shape)}.")
        return self.plan.flatten().dot(cost.to(self.plan).flatten()).item()
