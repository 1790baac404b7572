import pytest
import torch
from torch import nn

from hf_zoosel.training import checkpoints


def made(steps=3, seed=0):
    """A small network after some steps of SGD with momentum, and its optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        advance(model, optimizer, steps)
    return model, optimizer


def advance(model, optimizer, steps):
    for step in range(steps):
        rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(rows).square().sum().backward()
        optimizer.step()


def test_what_is_restored_goes_on_exactly_as_what_was_written(tmp_path):
    model, optimizer = made()
    checkpoints.write(tmp_path, "run", {"step": 3, "history": [{"loss": 0.5}]}, model, optimizer)
    other, its_optimizer = made(steps=0, seed=7)
    found = checkpoints.newest(tmp_path, "run")
    found.restore(other, its_optimizer)
    assert found.progress == {"step": 3, "history": [{"loss": 0.5}]}
    advance(model, optimizer, 2)
    advance(other, its_optimizer, 2)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_the_last_two_are_kept(tmp_path):
    for step in (5, 20, 100, 1000):
        checkpoints.write(tmp_path, "run", {"step": step}, *made(0))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step-00000100.safetensors",
        "step-00001000.safetensors",
    ]
    checkpoints.remove(tmp_path)
    assert not tmp_path.exists()


def test_one_that_is_damaged_gives_way_to_the_one_before(tmp_path):
    for step in (1, 2):
        checkpoints.write(tmp_path, "run", {"step": step}, *made(0))
    newest = tmp_path / "step-00000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    assert checkpoints.newest(tmp_path, "run").progress["step"] == 1


def test_a_write_that_fails_leaves_the_last_good_one_and_names_it(tmp_path, monkeypatch):
    import safetensors.torch

    checkpoints.write(tmp_path, "run", {"step": 1}, *made(0))

    def full(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=r"No space left.*The last good one is .*step-00000001.safetensors; run again"):
        checkpoints.write(tmp_path, "run", {"step": 2}, *made(0))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.safetensors"]


def test_those_of_another_run_are_refused(tmp_path):
    model, optimizer = made(0)
    checkpoints.write(tmp_path, "run", {"step": 1}, model, optimizer)
    with pytest.raises(ValueError, match="`output_dir` must be empty or hold this run"):
        checkpoints.newest(tmp_path, "other")
    checkpoints.write_weights(tmp_path / "best.safetensors", "run", model)
    with pytest.raises(ValueError, match="`output_dir` must hold this run alone"):
        checkpoints.load_weights(tmp_path / "best.safetensors", "other", model)


def test_there_is_none_in_an_empty_folder(tmp_path):
    assert checkpoints.newest(tmp_path / "nowhere", "run") is None


def test_files_can_be_read_by_whom_others_can(tmp_path):
    (tmp_path / "plain").touch()
    written = checkpoints.write(tmp_path / "run", "run", {"step": 1}, *made(0))
    assert written.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_next_is_due_after_ten_times_as_long_as_writing_took(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    pace = checkpoints.Pace()
    assert pace.is_due
    with pace.writing():
        now[0] = 103.0
    for later, due in ((103.0, False), (132.9, False), (133.0, True), (1e9, True)):
        now[0] = later
        assert pace.is_due == due
