import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hf_zoosel.ranking import CandidateResult, Ranking, Score, rank_candidates


def ranking_of(table, metrics="abcdef"):
    """One row a candidate, one column a metric; NaN for no score."""
    metrics = tuple(metrics[: len(table[0])])
    results = [
        CandidateResult(
            f"candidate {number}",
            scores={m: Score(value) for m, value in zip(metrics, row, strict=True) if not math.isnan(value)},
        )
        for number, row in enumerate(table)
    ]
    return Ranking("task", 9, 3, metrics, rank_candidates(results, metrics=metrics))


def tau_b_as_written(x, y):
    """Kendall 1945: concordant less discordant pairs, over the root of the pairs untied in each."""
    pairs = list(combinations(range(len(x)), 2))
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs]
    untied = math.sqrt(sum(abs(s) for s, _ in signs)) * math.sqrt(sum(abs(t) for _, t in signs))
    return sum(s * t for s, t in signs) / untied if untied else math.nan


def w_as_written(table):
    """Kendall and Babington Smith 1939, with the correction for ties, rank by rank."""
    table = np.asarray(table, dtype=float)
    m, q = table.shape
    ranks = [[1 + sum(v < value for v in c) + (sum(v == value for v in c) - 1) / 2 for value in c] for c in table.T]
    totals = [sum(rank[i] for rank in ranks) for i in range(m)]
    spread = sum((total - q * (m + 1) / 2) ** 2 for total in totals)
    ties = sum(sum(list(c).count(v) ** 3 - list(c).count(v) for v in set(c)) for c in table.T)
    return 12 * spread / (q**2 * (m**3 - m) - q * ties)


tables = st.tuples(st.integers(2, 7), st.integers(2, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.5]), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)


@given(tables)
def test_every_two_metrics_are_compared_as_kendall_writes(table):
    found = ranking_of(table).agreement()
    columns = np.asarray(table).T
    expected = [[tau_b_as_written(x, y) for y in columns] for x in columns]
    np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-12)
    assert list(found.index) == list(found.columns) == list("abcd"[: len(columns)])


@given(tables)
def test_the_concordance_of_all_is_as_kendall_writes(table):
    found = ranking_of(table).concordance()
    if all(len(set(column)) == 1 for column in np.asarray(table).T):
        assert found is None
    else:
        assert found == pytest.approx(w_as_written(table), abs=1e-12)
        assert -1e-12 <= found <= 1 + 1e-12


def test_one_order_by_all_metrics_is_full_agreement_and_reversal_is_none():
    same = ranking_of([[1, 10, -5], [2, 20, -4], [3, 30, 0]])
    assert same.concordance() == 1
    assert (same.agreement() == 1).all(axis=None)
    with_an_empty_column = ranking_of([[1, 10, math.nan], [2, 20, math.nan], [3, 30, math.nan]])
    assert with_an_empty_column.concordance() == 1
    against = ranking_of([[1, 3], [2, 2], [3, 1]])
    assert against.concordance() == 0
    assert against.agreement().loc["a", "b"] == -1


def test_equals_the_example_of_a_textbook():
    # Siegel, Nonparametric statistics, 1956, table 9.1: 6 applicants ranked by 3 executives, W = .16
    ranks = [[1, 1, 6], [6, 5, 3], [3, 6, 2], [2, 4, 5], [5, 2, 4], [4, 3, 1]]
    assert ranking_of(ranks).concordance() == pytest.approx(0.16, abs=0.005)


def test_each_pair_takes_the_candidates_that_have_both_scores_and_all_together_those_that_have_every_one():
    nan = math.nan
    ranking = ranking_of([[1, 1, 9], [2, 2, nan], [3, nan, 8], [4, 4, 7]])
    table = ranking.agreement()
    assert table.loc["a", "b"] == 1
    assert table.loc["a", "c"] == -1
    assert ranking.concordance() == pytest.approx(w_as_written([[1, 1, 9], [4, 4, 7]]))


def test_a_single_candidate_or_metric_has_no_agreement_with_itself():
    alone = ranking_of([[1.0, 2.0]])
    assert alone.agreement().isna().all(axis=None)
    assert alone.concordance() is None
    assert ranking_of([[1.0], [2.0]]).concordance() is None
    assert ranking_of([[1.0], [2.0]]).agreement().to_numpy().tolist() == [[1.0]]


def test_a_metric_that_ties_all_candidates_says_nothing_of_the_others():
    tied = ranking_of([[1, 5], [2, 5], [3, 5]])
    assert math.isnan(tied.agreement().loc["a", "b"])
    assert tied.agreement().loc["a", "a"] == 1


def test_without_a_candidate_that_did_not_fail_there_is_an_empty_answer():
    failed = Ranking("task", 9, 3, ("a", "b"), (CandidateResult("x", error="gone"),))
    assert failed.agreement().isna().all(axis=None)
    assert failed.concordance() is None
    assert Ranking("task", 9, 3, ("a", "b"), ()).agreement().shape == (2, 2)
