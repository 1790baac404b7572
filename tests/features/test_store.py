import errno
import logging
import os

import numpy as np
import pytest
import torch

from hf_zoosel.features import store as store_module
from hf_zoosel.features.store import Chunk, FeatureStore, assemble, default_cache_dir, rows_with

PARTS = ("features", "source_logits")


@pytest.fixture
def entry(candidate, tmp_path):
    return FeatureStore(tmp_path).entry(candidate(), "float32")


def some_rows(numbers, n_features=4):
    digests = np.stack([np.full(16, number, dtype=np.uint8) for number in numbers])
    features = torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, n_features).contiguous()
    return Chunk(digests, {"features": features}, {"source_logits": "it has no source head"}, n_parameters=7)


def keys(*numbers):
    return [bytes([number] * 16) for number in numbers]


def test_rows_come_back_in_the_order_asked_for_from_any_chunk(entry):
    entry.append(some_rows([1, 2, 3]))
    entry.append(some_rows([4, 5]))
    chunks = entry.read(keys(5, 1, 9, 4), PARTS)
    assert rows_with(chunks, keys(5, 1, 9, 4), "features") == {0, 1, 3}
    assert assemble(chunks, keys(5, 1, 4), "features")[:, 0].tolist() == [5, 1, 4]
    assert chunks[0].n_parameters == 7


def test_a_part_the_candidate_cannot_give_is_known_and_not_asked_for_again(entry):
    entry.append(some_rows([1, 2]))
    chunks = entry.read(keys(1, 2), PARTS)
    assert rows_with(chunks, keys(1, 2, 3), "source_logits") == {0, 1}
    assert assemble(chunks, keys(1, 2), "source_logits") is None
    assert chunks[0].absent == {"source_logits": "it has no source head"}


def test_parts_written_at_different_times_come_together_and_only_those_asked_for_are_read(entry):
    entry.append(some_rows([1, 2, 3]))
    later = some_rows([3, 1, 2])
    entry.append(Chunk(later.digests, {"gradients": later.parts["features"] * 10}, {}, 7))
    chunks = entry.read(keys(2, 1), (*PARTS, "gradients"))
    assert assemble(chunks, keys(2, 1), "features")[:, 0].tolist() == [2, 1]
    assert assemble(chunks, keys(2, 1), "gradients")[:, 0].tolist() == [20, 10]
    (alone,) = entry.read(keys(2, 1), ["gradients"])
    assert set(alone.parts) == {"gradients"}
    assert alone.absent == {}


def test_chunks_without_a_wanted_row_are_not_read(entry):
    entry.append(some_rows([1, 2, 3]))
    entry.append(some_rows([4, 5]))
    assert len(entry.read(keys(4), PARTS)) == 1


def test_a_damaged_file_is_removed_and_said(entry, caplog):
    entry.append(some_rows([1, 2, 3]))
    (path,) = entry.folder.glob("*.safetensors")
    for content in (b"", b"not safetensors", path.read_bytes()[:-20], path.read_bytes()[:-1] + b"\x55"):
        path.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            assert entry.read(keys(1), PARTS) == []
        assert "damaged" in caplog.text
        assert not path.exists()
        caplog.clear()
        entry.append(some_rows([1, 2, 3]))


def test_a_damaged_file_that_cannot_be_removed_is_no_reason_to_stop(entry, caplog):
    (entry.folder / "a folder.safetensors").mkdir(parents=True)
    assert entry.read(keys(1), PARTS) == []
    assert "damaged" in caplog.text


def test_rows_of_another_candidate_are_not_taken_for_ones_own(candidate, entry, tmp_path, caplog):
    other = FeatureStore(tmp_path).entry(candidate(seed=1), "float32")
    other.append(some_rows([1, 2]))
    entry.folder.mkdir(parents=True)
    (path,) = other.folder.glob("*.safetensors")
    path.rename(entry.folder / path.name)
    assert entry.read(keys(1), PARTS) == []
    assert "another candidate" in caplog.text


def test_a_kill_while_writing_leaves_no_half_file_in_sight(entry, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        entry.append(some_rows([1]))
    assert entry.read(keys(1), PARTS) == []
    assert list(entry.folder.iterdir()) == []


def test_a_full_disk_keeps_the_rows_for_this_call(entry, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        entry.append(some_rows([1, 2]))
    assert "disk is full" in caplog.text
    assert len(entry.read(keys(2), PARTS)) == 1
    assert list(entry.folder.glob("*")) == []


def test_a_cache_folder_that_cannot_be_written_is_no_reason_to_stop(candidate, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    entry = FeatureStore(blocked).entry(candidate(), "float32")
    entry.append(some_rows([1]))
    assert "cannot be cached" in caplog.text
    assert len(entry.read(keys(1), PARTS)) == 1


def test_another_version_of_a_library_finds_nothing(candidate, tmp_path, monkeypatch):
    FeatureStore(tmp_path).entry(candidate(), "float32").append(some_rows([1]))
    assert FeatureStore(tmp_path).entry(candidate(), "float32").read(keys(1), PARTS) != []
    monkeypatch.setattr(store_module, "version", lambda library: "99.0")
    assert FeatureStore(tmp_path).entry(candidate(), "float32").read(keys(1), PARTS) == []


def test_another_layout_finds_nothing(candidate, tmp_path, monkeypatch):
    FeatureStore(tmp_path).entry(candidate(), "float32").append(some_rows([1]))
    monkeypatch.setattr(store_module, "LAYOUT", "99")
    assert FeatureStore(tmp_path).entry(candidate(), "float32").read(keys(1), PARTS) == []


def test_the_name_of_a_candidate_does_not_matter_but_dtype_and_weights_do(candidate, tmp_path):
    store = FeatureStore(tmp_path)
    assert store.entry(candidate("a"), "float32").folder == store.entry(candidate("b"), "float32").folder
    assert store.entry(candidate("a"), "float32").folder != store.entry(candidate("a"), "bfloat16").folder
    assert store.entry(candidate("a"), "float32").folder != store.entry(candidate("a", seed=1), "float32").folder


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ZOOSEL_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"
    monkeypatch.delenv("HF_ZOOSEL_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert default_cache_dir() == tmp_path / "hf" / "zoosel"
