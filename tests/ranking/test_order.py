import numpy as np
import pytest
from hypothesis import given, strategies as st

from hf_zoosel.ranking import CandidateResult, Resampler, Score, rank_candidates


def scored(**scores):
    return [CandidateResult(name, scores={"lfc": Score(value)}) for name, value in scores.items()]


def test_higher_comes_first_and_equal_scores_share_a_rank_in_order_of_name():
    ranked = rank_candidates(scored(d=0.1, c=0.2, b=0.2, a=0.3), metrics=["lfc"])
    assert [(c.name, c.rank) for c in ranked] == [("a", 1), ("b", 2), ("c", 2), ("d", 4)]


def test_candidates_without_a_score_follow_and_failed_ones_come_last():
    results = [CandidateResult("x", error="gone"), CandidateResult("y", skipped={"lfc": "no head"}), *scored(z=-5.0)]
    ranked = rank_candidates(results, metrics=["lfc"])
    assert [(c.name, c.rank) for c in ranked] == [("z", 1), ("y", None), ("x", None)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_becomes_a_reason(value):
    good, bad = rank_candidates(scored(good=0.0, bad=value), metrics=["lfc"])
    assert (good.name, bad.rank, bad.scores) == ("good", None, {})
    assert bad.skipped == {"lfc": f"the score is not finite ({value})"}


def test_two_identical_candidates_share_the_chance():
    replicates = Resampler(np.repeat([0, 1], 20), 300).replicates(0.5, np.random.default_rng(0).normal(size=40))
    ranked = rank_candidates(
        scored(a=0.5, b=0.5), {("a", "lfc"): replicates, ("b", "lfc"): replicates}, metrics=["lfc"]
    )
    assert [c.scores["lfc"].p_best for c in ranked] == [0.5, 0.5]
    assert [c.rank for c in ranked] == [1, 1]


def test_a_candidate_better_on_every_sample_is_first_for_sure_although_intervals_overlap():
    rng = np.random.default_rng(1)
    labels, worse = np.repeat([0, 1, 2], 10), rng.normal(size=30)
    better = worse + rng.uniform(0.01, 0.1, size=30)
    resampler = Resampler(labels, 500)
    replicates = {
        ("better", "lfc"): resampler.replicates(better.mean(), better - better.mean()),
        ("worse", "lfc"): resampler.replicates(worse.mean(), worse - worse.mean()),
    }
    first, second = rank_candidates(
        scored(worse=worse.mean(), better=better.mean()), replicates, metrics=["lfc"], level=0.95
    )
    assert (first.name, first.scores["lfc"].p_best, second.scores["lfc"].p_best) == ("better", 1.0, 0.0)
    assert first.scores["lfc"].low < second.scores["lfc"].high


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**31))
def test_chances_sum_to_one_and_intervals_are_percentiles(n_candidates, n_bootstrap, seed):
    draws = np.random.default_rng(seed).integers(0, 4, size=(n_candidates, n_bootstrap)).astype(float)  # many ties
    names = [f"m{i}" for i in range(n_candidates)]
    replicates = {(name, "lfc"): draw for name, draw in zip(names, draws, strict=True)}
    ranked = rank_candidates(scored(**dict.fromkeys(names, 0.0)), replicates, metrics=["lfc"], level=0.8)
    assert sum(c.scores["lfc"].p_best for c in ranked) == pytest.approx(1)
    for candidate, draw in zip(ranked, draws, strict=True):
        score = candidate.scores["lfc"]
        assert (score.low, score.high) == pytest.approx(tuple(np.quantile(draw, [0.1, 0.9])))
        shares = [
            (d == column.max()) / np.sum(column == column.max()) for d, column in zip(draw, draws.T, strict=True)
        ]
        assert score.p_best == pytest.approx(np.mean(shares))


def test_every_metric_has_its_own_chances_among_those_it_scored():
    results = [
        CandidateResult("a", scores={"lfc": Score(1.0), "leep": Score(-3.0)}),
        CandidateResult("b", scores={"lfc": Score(0.0), "leep": Score(-2.0)}),
        CandidateResult("no head", scores={"lfc": Score(0.5)}),
    ]
    replicates = {(c.name, m): np.full(9, s.value) for c in results for m, s in c.scores.items()}
    ranked = rank_candidates(results, replicates, metrics=["lfc", "leep"])
    chances = {c.name: {m: s.p_best for m, s in c.scores.items()} for c in ranked}
    assert chances == {"a": {"lfc": 1.0, "leep": 0.0}, "no head": {"lfc": 0.0}, "b": {"lfc": 0.0, "leep": 1.0}}


def test_chances_are_unknown_where_a_rival_has_no_replicates():
    a, b = rank_candidates(scored(a=1.0, b=0.0), {("b", "lfc"): np.array([0.0, 2.0])}, metrics=["lfc"])
    assert (a.scores["lfc"].low, a.scores["lfc"].p_best, b.scores["lfc"].p_best) == (None, None, None)
    assert b.scores["lfc"].low is not None


def test_a_failed_rival_takes_no_chance():
    failed = CandidateResult("x", scores={"lfc": Score(9.0)}, error="killed")
    ranked = rank_candidates([failed, *scored(a=0.0)], {("a", "lfc"): np.array([0.0])}, metrics=["lfc"])
    assert [(c.name, c.rank) for c in ranked] == [("a", 1), ("x", None)]
    assert ranked[0].scores["lfc"].p_best == 1.0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="`metrics` must name at least one"):
        rank_candidates([], metrics=[])
    with pytest.raises(ValueError, match=r"got several of \['a'\]"):
        rank_candidates([*scored(a=1.0), *scored(a=2.0)], metrics=["lfc"])
    with pytest.raises(ValueError, match=r"`replicates` of 'lfc' must be paired.*got \[1, 2\]"):
        rank_candidates(scored(a=1.0, b=2.0), {("a", "lfc"): np.zeros(1), ("b", "lfc"): np.zeros(2)}, metrics=["lfc"])
    with pytest.raises(ValueError, match="`replicates` of 'a', 'lfc' must be finite"):
        rank_candidates(scored(a=1.0), {("a", "lfc"): np.array([np.nan, 0.0])}, metrics=["lfc"])
