import pytest
import torch
from hypothesis import given, settings, strategies as st

from hf_zoosel.transport import capacity_plan
from tests.transport.transcriptions.capacity import capacity_cost_as_written


def problem(n, m, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cost = 3 * torch.rand(n, m, generator=generator, dtype=torch.float64)
    return cost, 0.1 + torch.rand(m, generator=generator, dtype=torch.float64)


sizes = (st.integers(2, 9), st.integers(1, 9), st.integers(0, 999))


@settings(max_examples=40)
@given(*sizes, st.data())
def test_costs_what_the_linear_programme_costs_and_keeps_the_quota(n, m, seed, data):
    cost, b = problem(n, m, seed)
    k = data.draw(st.integers(1, n))
    plan = capacity_plan(cost, b, k=k)
    assert plan.cost(cost) == pytest.approx(capacity_cost_as_written(cost.numpy(), b.numpy(), k), rel=1e-8)
    assert plan.target.numpy() == pytest.approx(b.numpy(), rel=1e-8)
    assert plan.source.max() <= b.sum() / k * (1 + 1e-8)
    assert (plan.source > 1e-9).sum() >= k


@settings(max_examples=20)
@given(*sizes)
def test_row_and_column_order_only_permute_the_plan(n, m, seed):
    cost, b = problem(n, m, seed)
    generator = torch.Generator().manual_seed(seed)
    i, j = torch.randperm(n, generator=generator), torch.randperm(m, generator=generator)
    other = capacity_plan(cost[i][:, j], b[j], k=max(1, n // 2)).plan
    assert other.numpy() == pytest.approx(capacity_plan(cost, b, k=max(1, n // 2)).plan[i][:, j].numpy(), abs=1e-9)


def test_duplicated_classes_share_alike_in_any_order():
    cost, b = problem(6, 4)
    doubled = torch.cat([cost, cost + 1e-15])
    plan = capacity_plan(doubled, b, k=4)
    assert plan.source[:6].numpy() == pytest.approx(plan.source[6:].numpy(), abs=1e-12)
    once = capacity_plan(cost, b, k=2)  # twice the capacity each
    assert (plan.source[:6] + plan.source[6:]).numpy() == pytest.approx(once.source.numpy(), abs=1e-9)


def test_duplicated_targets_are_served_in_proportion_to_their_weights():
    cost, _ = problem(6, 3)
    plan = capacity_plan(torch.cat([cost, cost], dim=1), torch.tensor([1.0, 1, 1, 2, 2, 2]), k=3).plan
    assert (2 * plan[:, :3]).numpy() == pytest.approx(plan[:, 3:].numpy(), abs=1e-9)


def test_a_planted_permutation_is_found_with_as_many_sources_as_targets():
    generator = torch.Generator().manual_seed(0)
    partner = torch.randperm(10, generator=generator)[:6]  # of each target
    cost = 1 + torch.rand(10, 6, generator=generator)
    cost[partner, torch.arange(6)] = 0.1
    plan = capacity_plan(cost, torch.ones(6), k=6)
    assert plan.plan[partner, torch.arange(6)].numpy() == pytest.approx(torch.ones(6).numpy())


def test_one_good_source_cannot_serve_all_under_a_quota_and_every_target_is_covered():
    cost = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [5.0, 5.0, 5.0]])
    plan = capacity_plan(cost, torch.ones(3), k=2)
    assert plan.source.tolist() == pytest.approx([1.5, 1.5, 0])
    assert plan.target.tolist() == pytest.approx([1, 1, 1])
    assert capacity_plan(cost, torch.ones(3), k=3).source.tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("shift", [0.0, -3.0, 1e6])
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_and_a_shift_of_the_cost_do_not_matter(scale, shift):
    cost, b = problem(8, 5)
    shifted = capacity_plan(scale * (cost.round(decimals=3) + shift), b, k=4).plan
    assert shifted.numpy() == pytest.approx(capacity_plan(cost.round(decimals=3), b, k=4).plan.numpy(), abs=1e-9)


def test_equal_costs_throughout_are_shared_by_all():
    assert capacity_plan(torch.full((4, 2), 0.3), torch.ones(2), k=2).source.tolist() == pytest.approx([0.5] * 4)


@pytest.mark.parametrize("k", [0, 4, -1])
def test_a_number_of_sources_that_is_not_there_is_refused(k):
    cost, b = problem(3, 2)
    with pytest.raises(ValueError, match=rf"`k` must be from 1 to the 3 source rows, got {k}"):
        capacity_plan(cost, b, k=k)


def test_a_plan_that_misses_its_marginals_is_an_error(monkeypatch):
    import ot

    monkeypatch.setattr(ot, "emd", lambda a, b, cost, **_: (0 * cost, {"warning": "stopped"}))
    with pytest.raises(RuntimeError, match=r"`ot.emd` must return a plan with the given marginals.*stopped"):
        capacity_plan(*problem(5, 4), k=3)
