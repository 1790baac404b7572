import dataclasses

import pytest
import torch

from hf_zoosel.transport import Plan


def test_marginals_mass_and_cost_are_sums_of_the_plan():
    plan = Plan(torch.tensor([[0.5, 0.0], [0.25, 0.75]], dtype=torch.float64))
    assert plan.source.tolist() == [0.5, 1.0]
    assert plan.target.tolist() == [0.75, 0.75]
    assert plan.mass == 1.5
    assert plan.cost(torch.tensor([[2.0, 9.0], [4.0, 1.0]])) == 2.75


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([[0.0, 0.0]], "mass 0"),
        ([[1.0, float("nan")]], "nan"),
        ([[1.0, float("inf")]], "inf"),
        ([[1.0, -0.1]], "least entry of -0.1"),
    ],
)
def test_a_plan_of_no_use_is_refused_with_the_remedy(entries, found):
    with pytest.raises(ValueError, match=rf"`plan` must be finite.*{found}.*Raise `reg`"):
        Plan(torch.tensor(entries))


def test_the_cost_must_be_of_the_plan():
    with pytest.raises(ValueError, match=r"`cost` must have the plan's shape \(2, 2\), got \(2, 3\)"):
        Plan(torch.eye(2)).cost(torch.ones(2, 3))


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Plan(torch.eye(2)).converged = False
