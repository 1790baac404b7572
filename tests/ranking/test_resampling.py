import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hf_zoosel.ranking import Resampler, interval


def variance_of_a_stratified_mean(x, labels):
    """The textbook formula: sum over classes of (m_c / n)^2 * s_c^2 / m_c, with the unbiased s_c^2."""
    x, labels = np.asarray(x), np.asarray(labels)
    per_class = [x[labels == c] for c in np.unique(labels)]
    return sum((len(v) / len(x)) ** 2 * v.var(ddof=1) / len(v) for v in per_class if len(v) > 1)


@st.composite
def tasks(draw):
    labels = draw(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return np.array(labels), rng.normal(size=len(labels)), draw(st.integers(0, 2**31))


def weights_of(labels, n_bootstrap, seed):
    """The weights a Resampler re-weights rows by, seen through an influence of one row at a time: (B, n)."""
    resampler = Resampler(labels, n_bootstrap, seed)
    return 1 + len(labels) * np.stack([resampler.replicates(0.0, row) for row in np.eye(len(labels))], axis=1)


@given(tasks())
def test_weights_are_whole_draws_and_keep_every_class_count(task):
    labels, _, seed = task
    weights = weights_of(labels, 20, seed)
    sizes = np.array([np.sum(labels == label) for label in labels])
    draws = weights * np.maximum(sizes - 1, 1) / sizes
    assert draws == pytest.approx(np.round(draws).clip(0), abs=1e-9)
    for label in np.unique(labels):
        of_class = weights[:, labels == label]
        assert of_class.sum(axis=1) == pytest.approx(np.full(20, of_class.shape[1]))


def test_a_class_of_one_row_keeps_its_weight():
    weights = weights_of([7, 7, -1], 50, seed=0)
    assert (weights[:, 2] == 1).all()
    assert set(np.unique(weights[:, :2])) == {0.0, 2.0}


@pytest.mark.parametrize("m", [2, 3, 10])
def test_weights_have_the_moments_of_one_draw_fewer(m):
    weights = weights_of(np.zeros(m), 40_000, seed=3)
    covariance = np.cov(weights, rowvar=False)
    assert np.diag(covariance) == pytest.approx(np.ones(m), abs=0.05)
    assert covariance[~np.eye(m, dtype=bool)] == pytest.approx(np.full(m * (m - 1), -1 / (m - 1)), abs=0.05)


@given(tasks())
def test_replicates_are_the_score_plus_the_weighted_influence(task):
    labels, influence, seed = task
    weights = weights_of(labels, 20, seed)
    expected = 0.7 + np.mean((weights - 1) * influence, axis=1)
    assert Resampler(labels, 20, seed).replicates(0.7, influence) == pytest.approx(expected, abs=1e-12)


@given(tasks())
def test_the_same_seed_gives_the_same_replicates_whatever_the_class_names(task):
    labels, influence, seed = task
    first = Resampler(labels, 20, seed).replicates(0.0, influence)
    assert (Resampler(100 + 7 * labels, 20, seed).replicates(0.0, influence) == first).all()


def test_another_seed_gives_other_replicates():
    labels, influence = np.repeat([0, 1], 10), np.arange(20.0)
    assert not np.array_equal(
        Resampler(labels, 20, 0).replicates(0, influence), Resampler(labels, 20, 1).replicates(0, influence)
    )


@pytest.mark.parametrize("sizes", [(25, 25, 25), (2, 3, 60), (1, 5, 40)])
def test_variance_of_a_stratified_mean_is_the_textbook_one(sizes):
    labels = np.repeat(np.arange(3), sizes)
    x = np.random.default_rng(5).normal(loc=labels * 10.0, scale=1 + labels)
    replicates = Resampler(labels, 40_000, 0).replicates(x.mean(), x - x.mean())
    assert replicates.mean() == pytest.approx(x.mean(), abs=0.01)
    assert replicates.var() == pytest.approx(variance_of_a_stratified_mean(x, labels), rel=0.04)


def test_grouping_rows_leaves_the_expected_variance_as_it_is():
    labels = np.repeat([0, 1, 2], [3000, 901, 100])
    x = np.random.default_rng(6).gamma(1.0, size=4001) + labels
    variances = [Resampler(labels, 500, seed, max_units=200).replicates(0, x).var() for seed in range(60)]
    # Each has a relative error of sqrt(2 / 200 + 2 / 500) = 0.12, their mean one of 0.015.
    assert np.mean(variances) == pytest.approx(variance_of_a_stratified_mean(x, labels), rel=0.05)


def test_grouped_classes_of_one_and_two_rows_stay_apart():
    labels = np.concatenate([np.zeros(1000), [1], [2, 2]])
    influence = np.zeros(1003)
    influence[1000] = 5.0  # the class of one row cannot vary
    assert (Resampler(labels, 100, 0, max_units=50).replicates(0.3, influence) == 0.3).all()
    influence[1001] = 5.0
    assert Resampler(labels, 100, 0, max_units=50).replicates(0.3, influence).std() > 0


def test_intervals_cover_the_truth_as_often_as_they_say():
    labels, rng = np.repeat([0, 1, 2], [20, 30, 50]), np.random.default_rng(7)
    means, spread = np.array([0.0, 3.0, -2.0]), np.array([1.0, 0.5, 2.0])
    truth = means[labels].mean()
    resampler = Resampler(labels, 1000, 0)
    hits = 0
    for _ in range(2000):
        x = rng.normal(means[labels], spread[labels])
        low, high = interval(resampler.replicates(x.mean(), x - x.mean()), level=0.9)
        hits += low <= truth <= high
    assert hits / 2000 == pytest.approx(0.9, abs=0.02)  # three standard errors


def test_a_million_rows_need_less_than_200_megabytes():
    rng = np.random.default_rng(8)
    labels, influence = rng.integers(0, 1000, 1_000_000), rng.normal(size=1_000_000)
    tracemalloc.start()
    replicates = Resampler(labels, 1000, 0).replicates(0.0, influence)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    assert replicates.std() == pytest.approx(1e-3, rel=0.1)


@settings(max_examples=20)
@given(st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_an_interval_leaves_as_much_on_either_side(level, seed):
    replicates = np.random.default_rng(seed).normal(size=501)
    low, high = interval(replicates, level)
    assert abs(np.sum(replicates < low) - np.sum(replicates > high)) <= 1
    assert np.mean((replicates >= low) & (replicates <= high)) == pytest.approx(level, abs=2 / 501)


def test_bad_input_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"`labels` must have shape \(n,\) with at least one row, got \(0,\)"):
        Resampler([], 10)
    with pytest.raises(ValueError, match="`n_bootstrap` must be at least 1, got 0"):
        Resampler([0, 1], 0)
    with pytest.raises(ValueError, match=r"`influence` must have shape \(2,\)"):
        Resampler([0, 0], 10).replicates(0.0, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="`influence` must be finite, got 1 values that are not"):
        Resampler([0, 0], 10).replicates(0.0, [1.0, np.nan])
    with pytest.raises(ValueError, match=r"For 95 % pass 0\.95"):
        interval([0.0, 1.0], level=95)
