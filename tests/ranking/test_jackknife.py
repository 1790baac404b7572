import numpy as np
import pytest
from hypothesis import given, strategies as st

from hf_zoosel.ranking import Resampler, jackknife_influence


def variance(influence, labels):
    """The exact variance of a Resampler's replicates: sum over classes of (m_c / n)^2 * s_c^2 / m_c."""
    sizes = np.bincount(labels)
    return sum(m * influence[labels == c].var(ddof=1) for c, m in enumerate(sizes) if m > 1) / len(labels) ** 2


def deletions(labels, n_groups, seed=0):
    """Record the rows each call is given."""
    kept = []
    jackknife_influence(lambda rows: kept.append(rows) or 0.0, labels, n_groups=n_groups, seed=seed)
    return kept


def test_variance_is_the_delete_a_group_jackknife_where_groups_are_balanced():
    labels = np.repeat(np.arange(3), 20)
    x = np.random.default_rng(0).gamma(2.0, size=60)
    calls = []

    def score(rows):
        calls.append(np.log(x[rows].mean()) * x[rows].std())
        return calls[-1]

    influence = jackknife_influence(score, labels, n_groups=10, seed=1)
    assert len(calls) == 10
    assert variance(influence, labels) == pytest.approx(9 / 10 * np.sum((calls - np.mean(calls)) ** 2), rel=1e-12)


@pytest.mark.parametrize("n_groups", [5, 20])
def test_variance_of_a_mean_is_the_textbook_one_on_average(n_groups):
    labels = np.repeat(np.arange(4), 20)
    x = np.random.default_rng(1).normal(loc=5 * labels, scale=1 + labels)
    estimates = [
        variance(jackknife_influence(lambda rows: x[rows].mean(), labels, n_groups=n_groups, seed=seed), labels)
        for seed in range(400)
    ]
    textbook = sum((20 / 80) ** 2 * x[labels == c].var(ddof=1) / 20 for c in range(4))
    error = np.std(estimates) / np.sqrt(400)
    assert np.mean(estimates) == pytest.approx(textbook, abs=4 * error)
    assert error < 0.05 * textbook


def test_deleting_single_rows_gives_the_influence_of_a_mean_exactly():
    labels, x = np.array([0, 1, 0, 1, 1]), np.array([1.0, 5.0, 2.0, -3.0, 4.0])
    influence = jackknife_influence(lambda rows: x[rows].mean(), labels, n_groups=5)
    assert influence == pytest.approx(x - x.mean(), abs=1e-12)


def test_unbalanced_groups_err_on_the_large_side_only():
    labels = np.repeat(np.arange(6), 25)  # 20 groups do not divide 25
    x = np.random.default_rng(2).normal(loc=5 * labels, scale=1.0)
    ratios = []
    for n_groups in (20, 25):
        estimates = [
            variance(jackknife_influence(lambda rows: x[rows].mean(), labels, n_groups=n_groups, seed=s), labels)
            for s in range(200)
        ]
        ratios.append(np.mean(estimates) / (sum(x[labels == c].var(ddof=1) for c in range(6)) * 25 / 150**2))
    assert ratios[0] == pytest.approx(3.0, abs=0.5)
    assert ratios[1] == pytest.approx(1.0, abs=0.1)


def test_spread_of_a_nonlinear_score_is_that_over_fresh_samples():
    """Correlation of two variables: its spread over 300 samples against the mean of their estimates."""
    labels, rng = np.repeat([0, 1], 50), np.random.default_rng(3)
    resampler, scores, estimates = Resampler(labels, 500, 0), [], []
    for _ in range(300):
        x = rng.normal(size=100)
        y = 0.6 * x + 0.8 * rng.normal(size=100)

        def score(rows, x=x, y=y):
            return float(np.corrcoef(x[rows], y[rows])[0, 1])

        scores.append(score(np.arange(100)))
        estimates.append(resampler.replicates(scores[-1], jackknife_influence(score, labels)).var())
    assert np.sqrt(np.mean(estimates)) == pytest.approx(np.std(scores), rel=0.15)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(2, 12), st.integers(0, 1000))
def test_no_class_ever_vanishes_and_groups_are_disjoint(labels, n_groups, seed):
    labels = np.array(labels)
    deleted = []
    for rows in deletions(labels, n_groups, seed):
        assert (np.diff(rows) > 0).all()
        assert set(labels[rows]) == set(labels)
        deleted += sorted(set(range(len(labels))) - set(rows.tolist()))
    singles = np.isin(labels, np.flatnonzero(np.bincount(labels) == 1))
    assert sorted(deleted) == np.flatnonzero(~singles).tolist()  # every other row exactly once


def test_rows_never_deleted_have_no_influence():
    x = np.array([9.0, 1.0, 2.0])
    influence = jackknife_influence(lambda rows: x[rows].mean(), [0, 1, 1], n_groups=2)
    assert influence[0] == 0.0
    assert not jackknife_influence(lambda rows: 1.0, [0, 1, 2]).any()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="`n_groups` must be at least 2, got 1"):
        jackknife_influence(lambda rows: 0.0, [0, 0, 1, 1], n_groups=1)
    with pytest.raises(ValueError, match="`score_fn` must return finite scores, got nan"):
        jackknife_influence(lambda rows: float("nan"), [0, 0, 1, 1])
