import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.transport import semi_relaxed_plan, unbalanced_plan
from tests.transport.transcriptions.semi_relaxed import semi_relaxed_plan_as_written


def problem(n, m, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cost = 3 * torch.rand(n, m, generator=generator, dtype=torch.float64)
    return cost, 0.1 + torch.rand(m, generator=generator, dtype=torch.float64)


sizes = (st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))


@settings(max_examples=30)
@given(*sizes, st.sampled_from([0.001, 0.1, 1.0, 20.0]))
def test_equals_the_sums_as_written(n, m, seed, reg):
    cost, b = problem(n, m, seed)
    plan = semi_relaxed_plan(cost, b, reg=reg)
    expected = semi_relaxed_plan_as_written(cost.numpy(), b.numpy(), reg)
    assert plan.plan.numpy() == pytest.approx(expected, rel=1e-10, abs=1e-300)
    assert plan.target.numpy() == pytest.approx(b.numpy(), rel=1e-12)


@settings(max_examples=20)
@given(*sizes)
def test_is_unbalanced_transport_with_a_free_source_and_an_exact_target(n, m, seed):
    cost, b = problem(n, m, seed)
    limit = unbalanced_plan(cost, torch.ones(n), b, reg=0.5, reg_source=0.0, reg_target=float("inf"))
    assert semi_relaxed_plan(cost, b, reg=0.5).plan.numpy() == pytest.approx(limit.plan.numpy(), rel=1e-9)


def test_a_vanishing_regularisation_takes_the_nearest_source():
    cost, b = problem(7, 5)
    plan = semi_relaxed_plan(cost, b, reg=1e-9).plan
    assert plan.argmax(dim=0).tolist() == cost.argmin(dim=0).tolist()
    assert plan.amax(dim=0).tolist() == b.tolist()


@pytest.mark.parametrize("reg", [0.0, -1.0, float("nan"), float("inf")])
def test_a_regularisation_out_of_range_is_refused(reg):
    cost, b = problem(3, 2)
    with pytest.raises(ValueError, match="`reg` must be finite and greater than 0"):
        semi_relaxed_plan(cost, b, reg=reg)
