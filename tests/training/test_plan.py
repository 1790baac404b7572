import numpy as np
import pytest
from hypothesis import given, strategies as st

from hf_zoosel.training.plan import SourcePlan, TargetPlan, share
from hf_zoosel.training.randomness import Purpose, generator

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**40)


@given(sizes, sizes, seeds)
def test_an_epoch_sees_every_target_row_once_but_what_fills_no_batch(n_rows, batch_size, seed):
    plan = TargetPlan(n_rows, batch_size, seed)
    for epoch in range(3):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        rows = np.concatenate([plan.rows(step) for step in steps])
        assert len(set(rows.tolist())) == len(rows) == n_rows // plan.batch_size * plan.batch_size
        assert rows.dtype == np.int64
        assert set(rows.tolist()) <= set(range(n_rows))


@given(sizes, sizes, seeds)
def test_a_pass_over_the_source_sees_every_row_once_though_batches_span_passes(n_rows, batch_size, seed):
    plan = SourcePlan(n_rows, batch_size, seed)
    n_steps = -(-3 * n_rows // batch_size)
    rows = np.concatenate([plan.rows(step) for step in range(n_steps)])
    for start in range(0, 3 * n_rows, n_rows):
        assert sorted(rows[start : start + n_rows].tolist()) == list(range(n_rows))


@given(st.integers(2, 40), st.integers(1, 8), seeds, st.lists(st.integers(0, 200), min_size=1, max_size=8), st.data())
def test_a_step_sees_the_same_rows_wherever_one_starts(n_rows, batch_size, seed, steps, data):
    weights = data.draw(st.none() | st.lists(st.floats(0.1, 9), min_size=n_rows, max_size=n_rows).map(np.array))
    for make in (TargetPlan, lambda *numbers: SourcePlan(*numbers, weights)):
        in_order = [make(n_rows, batch_size, seed).rows(step).tolist() for step in range(max(steps) + 1)]
        plan = make(n_rows, batch_size, seed)
        assert [plan.rows(step).tolist() for step in steps] == [in_order[step] for step in steps]


def test_seeds_epochs_and_streams_have_orders_of_their_own():
    orders = [TargetPlan(50, 50, seed).rows(epoch).tolist() for seed in range(3) for epoch in range(3)]
    orders += [SourcePlan(50, 50, seed).rows(number).tolist() for seed in range(3) for number in range(3)]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_no_two_purposes_share_numbers():
    drawn = [generator(seed, p, i).integers(2**62) for seed in range(3) for p in Purpose for i in range(20)]
    assert len(set(drawn)) == len(drawn)


def test_weights_are_respected():
    weights = np.array([1.0, 0.0, 3.0, 6.0])
    plan = SourcePlan(4, 100, 0, weights)
    counts = np.bincount(np.concatenate([plan.rows(step) for step in range(100)]), minlength=4)
    expected = weights / weights.sum() * counts.sum()
    assert counts[1] == 0
    chi_square = (((counts - expected) ** 2)[expected > 0] / expected[expected > 0]).sum()
    assert chi_square < 18  # 2 degrees of freedom: 1e-4
    assert plan.rows(3).tolist() != plan.rows(4).tolist()


@given(st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 1.0, 1e12]), min_size=1, max_size=30).filter(any), seeds)
def test_rows_of_weight_zero_are_never_drawn(weights, seed):
    rows = SourcePlan(len(weights), 64, seed, np.array(weights)).rows(seed % 97)
    assert all(weights[row] > 0 for row in rows)


@given(st.integers(1, 6), st.integers(1, 10))
def test_shares_make_up_the_batch(size, each):
    rows = np.arange(size * each) * 3
    parts = [share(rows, rank, size) for rank in range(size)]
    assert np.concatenate(parts).tolist() == rows.tolist()
    assert {len(part) for part in parts} == {each}


def test_a_target_smaller_than_a_batch_is_a_batch():
    plan = TargetPlan(3, 32, 0)
    assert plan.batch_size == 3
    assert sorted(plan.rows(5).tolist()) == [0, 1, 2]


def test_a_batch_that_cannot_be_shared_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"`batch_size` must be divisible by the 3 processes, got 10 .* Pass 9, or"):
        share(np.arange(10), 0, 3)


@pytest.mark.parametrize(
    ("weights", "said"),
    [([1.0], r"shape \(2,\)"), ([0.0, 0.0], "not all 0"), ([-1.0, 2.0], "at least 0"), ([np.inf, 1.0], "finite")],
)
def test_weights_that_are_none_are_refused(weights, said):
    with pytest.raises(ValueError, match=said):
        SourcePlan(2, 1, 0, np.array(weights))


@pytest.mark.parametrize("numbers", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_numbers_out_of_range_are_refused(numbers):
    for plan in (TargetPlan, SourcePlan):
        with pytest.raises(ValueError, match="must be at least"):
            plan(*numbers)
