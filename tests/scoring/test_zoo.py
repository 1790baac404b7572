import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from hf_zoosel.metrics import METRICS, Metric
from hf_zoosel.metrics.feature_metrics import feature_metrics_over_zoo
from hf_zoosel.ranking import CandidateResult, Score
from hf_zoosel.scoring import Scored, score_over_zoo
from hf_zoosel.scoring.candidate import Terms
from tests.scoring.networks import convolving
from tests.test_rank_models import Colours, pictures, rank, to_tensor


def relative(over_zoo, name="relative"):
    return Metric(name, lambda f, y: (1.0, 2.0), ("features", "labels"), "O(1)", "this test", over_zoo=over_zoo)


def share(terms):
    return terms[:, 0] / terms.sum()


def with_terms(name, values, replicates=None, metric="relative"):
    drawn = None if replicates is None else np.asarray(replicates, dtype=float)
    return Scored(CandidateResult(name), terms={metric: Terms(np.asarray(values, dtype=float), drawn)})


def values(scored, metric):
    return {one.result.name: one.result.scores[metric].value for one in scored if metric in one.result.scores}


def test_candidates_with_terms_are_scored_together_and_the_others_do_not_count():
    lacking = Scored(CandidateResult("lacking", skipped={"relative": "it has no maps"}))
    failed = Scored.failure("failed", "gone")
    scored = score_over_zoo([with_terms("a", [3]), lacking, failed, with_terms("b", [1])], [relative(share)])
    assert [one.result.name for one in scored] == ["a", "lacking", "failed", "b"]
    assert values(scored, "relative") == {"a": 0.75, "b": 0.25}
    assert scored[1].result.skipped == {"relative": "it has no maps"}
    assert scored[2].result.skipped == {}


@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 2**31))
def test_the_replicates_of_one_draw_are_scored_together(n_candidates, n_bootstrap, seed):
    drawn = np.random.default_rng(seed).random((n_candidates, n_bootstrap, 2))
    zoo = [with_terms(str(i), one.mean(axis=0), one) for i, one in enumerate(drawn)]
    scored = score_over_zoo(zoo, [relative(feature_metrics_over_zoo)])
    for b in range(n_bootstrap):
        expected = feature_metrics_over_zoo(torch.from_numpy(drawn[:, b])).numpy()
        assert [one.replicates["relative"][b] for one in scored] == expected.tolist()


def test_where_one_candidate_has_no_replicates_none_has_an_interval():
    scored = score_over_zoo([with_terms("a", [3], [[2], [4]]), with_terms("b", [1])], [relative(share)])
    assert all("relative" not in one.replicates for one in scored)
    assert values(scored, "relative") == {"a": 0.75, "b": 0.25}


def test_one_candidate_alone_has_a_documented_score():
    scored = score_over_zoo([with_terms("a", [0.4, 7], metric="feature_metrics")], [METRICS["feature_metrics"]])
    assert values(scored, "feature_metrics") == {"a": 0.0}
    alone = rank(pictures(), {"a": convolving(0)}, ["feature_metrics"])
    score = alone.best.scores["feature_metrics"]
    assert (score.value, score.low, score.high, score.p_best) == (0.0, 0.0, 0.0, 1.0)


def raising(terms):
    raise ZeroDivisionError("oh\nno")


@pytest.mark.parametrize(
    ("over_zoo", "reason"),
    [
        (raising, "oh no"),
        (lambda terms: terms, "`over_zoo` must return shape (2,), one score a candidate, got (2, 1)"),
        (lambda terms: terms[:1, 0], "got (1,)"),
        (lambda terms: [1.0, 2.0], "'list' object has no attribute 'numpy'"),
    ],
)
def test_a_metric_that_fails_over_the_zoo_is_a_reason_and_takes_no_other_score_with_it(over_zoo, reason):
    zoo = [with_terms("a", [3]), with_terms("b", [1])]
    other = [Scored(CandidateResult(o.result.name, scores={"lfc": Score(0.1)}), terms=o.terms) for o in zoo]
    for one in score_over_zoo(other, [relative(over_zoo)]):
        assert one.result.scores == {"lfc": Score(0.1)}
        assert reason in one.result.skipped["relative"]


def test_a_score_that_is_not_finite_is_a_reason_for_that_candidate():
    scored = score_over_zoo([with_terms("a", [3]), with_terms("b", [0])], [relative(lambda t: (t / t)[:, 0])])
    assert values(scored, "relative") == {"a": 1.0}
    assert scored[1].result.skipped == {"relative": "the score is not finite (nan)"}


@pytest.mark.parametrize("over_zoo", [lambda t: (t / t)[:, 0], lambda t: t[:, 0] if t.all() else raising(t)])
def test_replicates_that_cannot_be_scored_cost_the_interval_and_not_the_score(over_zoo, caplog):
    zoo = [with_terms("a", [3], [[2], [4]]), with_terms("b", [1], [[0], [2]])]
    scored = score_over_zoo(zoo, [relative(over_zoo)])
    assert set(values(scored, "relative")) == {"a", "b"}
    assert all("relative" not in one.replicates for one in scored)
    assert "No interval for 'relative'" in caplog.text


def by_metrics(name, replicates=None, **scores):
    drawn = {metric: np.asarray(some, dtype=float) for metric, some in (replicates or {}).items()}
    return Scored(CandidateResult(name, scores={m: Score(v) for m, v in scores.items()}), replicates=drawn)


CHOSEN = [METRICS[name] for name in ("consensus", "lfc", "leep", "size", "random")]


def test_consensus_is_over_the_chosen_metrics_that_look_at_the_target():
    scored = score_over_zoo(
        [
            by_metrics("a", lfc=0.3, leep=-1.0, size=1.0, random=0.1),
            by_metrics("b", lfc=0.2, leep=-2.0, size=9.0, random=0.9),
            by_metrics("headless", lfc=0.4, size=5.0, random=0.5),
            by_metrics("nothing", size=99.0, random=0.99),
            Scored.failure("failed", "gone"),
        ],
        CHOSEN,
    )
    assert values(scored, "consensus") == {"a": 0.75, "b": 0.0, "headless": 1.0}
    assert scored[3].result.skipped == {"consensus": "no metric it is made of has a score of it"}
    assert scored[4].result.skipped == {}


def test_consensus_has_replicates_although_a_member_has_none():
    lfc = {"a": [3.0, 1.0, 1.0], "b": [2.0, 2.0, 2.0]}
    zoo = [by_metrics(name, {"lfc": drawn}, lfc=3.0 if name == "a" else 2.0, leep=-1.0) for name, drawn in lfc.items()]
    scored = score_over_zoo(zoo, CHOSEN)
    assert values(scored, "consensus") == {"a": 0.75, "b": 0.25}
    assert [one.replicates["consensus"].tolist() for one in scored] == [[0.75, 0.25, 0.25], [0.25, 0.75, 0.75]]


def test_consensus_comes_after_the_metrics_over_the_zoo_that_it_is_made_of():
    zoo = [with_terms("a", [1]), with_terms("b", [3])]
    zoo = [Scored(CandidateResult(o.result.name, scores={"lfc": Score(0.1)}), terms=o.terms) for o in zoo]
    scored = score_over_zoo(zoo, [METRICS["consensus"], METRICS["lfc"], relative(share)])
    assert values(scored, "consensus") == {"a": 0.25, "b": 0.75}


@pytest.mark.parametrize("metrics", ["consensus", ["consensus", "lfc"], ["consensus", "lfc", "size", "random"]])
def test_a_consensus_of_fewer_than_two_metrics_is_refused_with_the_remedy(metrics):
    with pytest.raises(ValueError, match=r"at least 2 metrics for 'consensus' to be made of, got .*Name them beside"):
        rank(pictures(), {"a": convolving(0)}, metrics)


def test_a_ranking_has_scores_over_the_zoo_with_intervals_and_reasons_where_there_are_no_maps():
    models = {"a": convolving(0), "b": convolving(1), "flat": (Colours(), to_tensor)}
    ranking = rank(pictures(), models, ["feature_metrics", "lfc", "knn", "consensus"])
    assert [c.rank for c in ranking] == [1, 2, None]
    assert ranking["flat"].skipped == {"feature_metrics": "it has no feature maps before its pooling"}
    for metric in ("feature_metrics", "consensus"):
        scores = [c.scores[metric] for c in ranking if metric in c.scores]
        assert all(score.low <= score.value <= score.high for score in scores)
        assert sum(score.p_best for score in scores) == pytest.approx(1)
    assert set(ranking["flat"].scores) == {"lfc", "knn", "consensus"}
    pair = rank(pictures(), {"a": models["a"], "b": models["b"]}, "feature_metrics")
    for name in "ab":  # normalised without the one that has none
        assert pair[name].scores["feature_metrics"] == ranking[name].scores["feature_metrics"]


def test_a_third_partys_metric_may_depend_on_the_zoo():
    def spreads(features, labels):
        features.mul_(1)  # what it does to its input stays with it
        return features.std().item(), float(len(labels))

    def largest_share(terms):
        return terms[:, 0] / terms[:, 0].sum()

    own = Metric("share", spreads, ("features", "labels"), "O(n d)", "this test", over_zoo=largest_share)
    ranking = rank(pictures(), {"a": convolving(0), "b": convolving(1)}, own)
    assert math.fsum(c.scores["share"].value for c in ranking) == pytest.approx(1)
    assert all(c.scores["share"].low <= c.scores["share"].value <= c.scores["share"].high for c in ranking)
