import copy
import dataclasses
import pickle

import pytest

from hf_zoosel.ranking import CandidateResult, Ranking, Score, rank_candidates


def test_records_never_change(ranking):
    with pytest.raises(dataclasses.FrozenInstanceError):
        ranking.task = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        ranking.best.rank = 2
    with pytest.raises(TypeError):
        ranking.best.scores["lfc"] = Score(1.0)
    scores = {"lfc": Score(0.1)}
    candidate = CandidateResult("a", scores=scores)
    scores["lfc"] = Score(0.9)
    assert candidate.scores == {"lfc": Score(0.1)}


def test_records_travel_between_processes_and_compare_by_value(ranking):
    for other in (pickle.loads(pickle.dumps(ranking)), copy.deepcopy(ranking), copy.copy(ranking)):
        assert other == ranking
        assert hash(other) == hash(ranking)
    assert dataclasses.replace(ranking, task="other") != ranking


def test_candidates_are_found_by_name_and_by_position(ranking):
    assert ranking["org/model_0"] is ranking[0] is ranking.best
    assert ranking[-1].failed
    assert [str(c) for c in ranking][:3] == ["org/model_0", "org/model_1", "org/model_2"]
    assert len(ranking) == 5
    assert "org/gated" in ranking
    assert ranking.best in ranking
    assert "org/nothing" not in ranking


def test_an_unknown_name_suggests_the_closest(ranking):
    with pytest.raises(KeyError, match="Did you mean 'org/model_0'"):
        ranking["org/model0"]
    with pytest.raises(KeyError, match="Have "):
        ranking["zzzz"]


def test_top_gives_ranked_candidates_only(ranking):
    assert ranking.top(2) == ranking.candidates[:2]
    assert ranking.top(99) == ranking.candidates[:3]
    with pytest.raises(ValueError, match="`k` must be at least 1, got 0"):
        ranking.top(0)


def test_failures_carry_their_reasons(ranking):
    assert [c.name for c in ranking.failures] == ["bad/markup [bold]", "org/gated"]
    assert ranking["org/gated"].error == "401: access is restricted"


def test_another_metric_reorders_and_ranks_anew(ranking):
    by_leep = ranking.by("leep")
    assert by_leep.metrics == ("leep", "lfc")
    assert [(c.name, c.rank) for c in by_leep][:3] == [("org/model_0", 1), ("org/model_2", 2), ("org/model_1", None)]
    assert by_leep.by("lfc") == ranking
    with pytest.raises(ValueError, match=r"`metric` must be one of \['lfc', 'leep'\], got 'logme'"):
        ranking.by("logme")


def test_no_best_quotes_every_reason():
    results = [
        CandidateResult("a", error="gated"),
        CandidateResult("b", skipped={"leep": "no head"}),
        CandidateResult("c", scores={"lfc": Score(0.0)}),
    ]
    metrics = ("leep", "lfc")
    ranking = Ranking("t", 1, 1, metrics, rank_candidates(results, metrics=metrics))
    with pytest.raises(ValueError, match="got none: b: no head; c: leep was not computed; a: gated"):
        _ = ranking.best
    with pytest.raises(ValueError, match="there is no candidate"):
        _ = Ranking("t", 1, 1, metrics, ()).best


def test_repr_is_one_line(ranking):
    assert repr(ranking) == (
        "Ranking(task='trash & co', metrics=('lfc', 'leep'), best='org/model_0', n_candidates=5, n_failed=2)"
    )


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"metrics": ()}, ValueError, "`metrics` must be different names, at least one"),
        ({"candidates": (CandidateResult("a"),) * 2}, ValueError, "`candidates` must have different names"),
        ({"candidates": (CandidateResult("a", 1, {"x": Score(1.0)}),)}, ValueError, "got 'x' of 'a'"),
        (
            {"candidates": (CandidateResult("a", 1, {"lfc": Score(float("nan"))}),)},
            ValueError,
            "Use `rank_candidates`",
        ),
        ({"settings": {"level": float("inf")}}, ValueError, "`settings` must be finite"),
        ({"settings": {"dtype": object()}}, TypeError, "`settings` must be strings, numbers, bools or None"),
    ],
)
def test_what_no_file_could_hold_is_refused(ranking, change, error, text):
    with pytest.raises(error, match=text):
        dataclasses.replace(ranking, **change)
