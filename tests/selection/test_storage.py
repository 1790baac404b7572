import dataclasses
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hf_zoosel.selection import Server, SourceClass, SourceSelection, TargetClass

finite = st.floats(allow_nan=False, allow_infinity=False)
maybe, text = st.none() | finite, st.text(max_size=6)
settings_of = st.dictionaries(text, st.none() | st.booleans() | st.integers() | finite | text, max_size=3)
servers = st.lists(st.builds(Server, text, st.integers(0), st.none() | finite, finite), max_size=2)


@st.composite
def selections(draw):
    n = draw(st.integers(1, 4))
    ranked = [
        SourceClass(draw(text), i, draw(finite), draw(finite), draw(st.integers(1, 2**40)), draw(text), draw(finite))
        for i in draw(st.permutations(range(n)))
    ]
    coverage = [
        TargetClass(
            draw(text), j, 1, draw(text), draw(finite), draw(maybe), draw(finite), draw(maybe), draw(maybe), by
        )
        for j, by in enumerate(draw(st.lists(servers, max_size=3)))
    ]
    return SourceSelection(
        method=draw(text),
        n_chosen=draw(st.integers(1, n)),
        ranked=ranked,
        coverage=coverage,
        n_effective=draw(finite),
        transport_cost=draw(maybe),
        near_limit=draw(maybe),
        unit=draw(st.sampled_from(["class", "cluster", "sample"])),
        source=draw(text),
        target=draw(text),
        options=draw(settings_of),
        seed=draw(st.integers()),
        rows=draw(st.none() | st.lists(st.integers(0), max_size=3)),
        details=draw(settings_of),
        notes=[draw(text)],
        versions={"torch": "2"},
        revisions={"model": draw(st.none() | text)},
    )


@given(selections())
def test_every_selection_survives_json_bit_for_bit(selection):
    again = SourceSelection.from_dict(json.loads(json.dumps(selection.to_dict(), allow_nan=False)))
    assert again == selection
    assert again.to_dict() == selection.to_dict()


@given(selections())
@settings(max_examples=30)
def test_every_selection_can_be_shown(selection):
    assert str(selection)
    assert repr(selection)
    assert selection.to_markdown()
    assert selection._repr_html_()
    assert len(selection.to_pandas()) == len(selection.ranked)
    assert len(selection.coverage_to_pandas()) == len(selection.coverage)


def test_a_saved_selection_is_loaded_equal(selection, tmp_path):
    path = tmp_path / "new" / "folder" / "selection.json"
    assert selection.save(path) == path
    assert SourceSelection.load(str(path)) == selection
    assert json.loads(path.read_text())["schema"] == 1
    dataclasses.replace(selection, rows=(np.int64(4), 2)).save(path)
    assert SourceSelection.load(path).rows == (4, 2)
    assert os.listdir(path.parent) == ["selection.json"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(selection, tmp_path):
    path = selection.save(tmp_path / "selection.json")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        dataclasses.replace(selection, versions={"torch": object()}).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["selection.json"]


def test_a_newer_file_asks_for_an_upgrade(selection):
    with pytest.raises(ValueError, match=r"a newer version wrote it\. Upgrade hf-zoosel"):
        SourceSelection.from_dict(selection.to_dict() | {"schema": 2, "ranked": "something new"})


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        SourceSelection.load(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "a selection written by `SourceSelection.save`, got damaged JSON"),
        (b"\xff\xfe\x00", "damaged JSON"),
        (b"[1, 2]", "something else"),
        (b'{"schema": 1, "candidates": []}', "something else"),
        (b'{"schema": 0, "ranked": []}', "positive integer"),
        (b'{"schema": 1, "ranked": []}', "damaged one .KeyError: 'method'"),
        (b'{"schema": 1, "ranked": Infinity}', "a number must be finite, got Infinity"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, words):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        SourceSelection.load(path)
    assert "other.json" in str(caught.value)


def test_a_truncated_file_is_damaged_wherever_it_ends(selection, tmp_path):
    path = selection.save(tmp_path / "selection.json")
    content = path.read_bytes().rstrip()
    for length in range(0, len(content), 307):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="damaged"):
            SourceSelection.load(path)
