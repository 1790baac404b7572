import dataclasses
import json
import os
import stat
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hf_zoosel.ranking import CandidateResult, Ranking, Score, SkippedImage, rank_candidates

finite = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | finite
scores = st.builds(Score, value=finite, low=maybe, high=maybe, p_best=maybe)


@st.composite
def rankings(draw):
    names = draw(st.lists(st.text(max_size=8), unique=True, max_size=4))
    metrics = tuple(draw(st.lists(st.text(min_size=1, max_size=4), unique=True, min_size=1, max_size=3)))
    candidates = [
        CandidateResult(
            name,
            scores=draw(st.dictionaries(st.sampled_from(metrics), scores)),
            skipped=draw(st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=2)),
            error=draw(st.none() | st.text()),
            n_parameters=draw(st.none() | st.integers(0, 2**40)),
            seconds=draw(maybe),
            revision=draw(st.none() | st.text()),
        )
        for name in names
    ]
    images = draw(st.lists(st.builds(SkippedImage, st.integers(0), st.text()), max_size=2))
    values = st.none() | st.booleans() | st.integers() | finite | st.text()
    settings = draw(st.dictionaries(st.text(max_size=4), values, max_size=3))
    return Ranking(draw(st.text()), 3, 2, metrics, tuple(candidates), settings, tuple(images), (draw(st.text()),))


@given(rankings())
def test_every_ranking_survives_json_bit_for_bit(ranking):
    again = Ranking.from_dict(json.loads(json.dumps(ranking.to_dict(), allow_nan=False)))
    assert again == ranking
    assert again.to_dict() == ranking.to_dict()


@given(rankings())
def test_every_ranking_can_be_shown(ranking):
    assert str(ranking)
    assert ranking.to_markdown()
    assert ranking._repr_html_()
    assert len(ranking.to_pandas()) == len(ranking)


def test_a_saved_ranking_is_loaded_equal(ranking, tmp_path):
    path = tmp_path / "new" / "folder" / "ranking.json"
    assert ranking.save(path) == path
    assert Ranking.load(str(path)) == ranking
    assert json.loads(path.read_text())["schema"] == 1
    ranking.by("leep").save(path)
    assert Ranking.load(path) == ranking.by("leep")
    assert os.listdir(path.parent) == ["ranking.json"]


def test_numpy_numbers_are_written_as_numbers(tmp_path):
    score = Score(np.float32(0.1), np.float64(0.05), np.float64(0.2))
    candidate = CandidateResult("a", scores={"lfc": score}, n_parameters=np.int64(5), seconds=np.float64(0.5))
    ranking = Ranking("t", np.int64(4), 2, ("lfc",), rank_candidates([candidate], metrics=["lfc"]))
    assert Ranking.load(ranking.save(tmp_path / "r.json")) == ranking


def test_a_failed_write_leaves_the_old_file_and_no_litter(ranking, tmp_path):
    path = ranking.save(tmp_path / "ranking.json")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        dataclasses.replace(ranking, versions={"torch": object()}).save(path)
    assert path.read_bytes() == before
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        ranking.save(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["folder", "ranking.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_saved_file_has_the_usual_permissions(ranking, tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    saved = ranking.save(tmp_path / "ranking.json")
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_newer_file_asks_for_an_upgrade(ranking):
    with pytest.raises(ValueError, match=r"a newer version wrote it\. Upgrade hf-zoosel"):
        Ranking.from_dict(ranking.to_dict() | {"schema": 2, "candidates": "something new"})


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Ranking.load(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "damaged JSON"),
        (b"\xff\xfe\x00", "damaged JSON"),
        (b"[1, 2]", "something else"),
        (b'{"a": 1}', "something else"),
        (b'{"schema": "x", "candidates": []}', "positive integer"),
        (b'{"schema": 1, "candidates": []}', "damaged one .KeyError: 'task'"),
        (b'{"schema": 1, "candidates": NaN}', "a number must be finite, got NaN"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, text):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=text) as caught:
        Ranking.load(path)
    assert "other.json" in str(caught.value)


def test_a_truncated_file_is_damaged_wherever_it_ends(ranking, tmp_path):
    path = ranking.save(tmp_path / "ranking.json")
    content = path.read_bytes().rstrip()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="damaged"):
            Ranking.load(path)
