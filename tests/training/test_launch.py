"""Where a run trains, and what is left on the model afterwards."""

import gc
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import hf_zoosel
from hf_zoosel.features import Team, join_team
from hf_zoosel.training import Recipe, launch
from tests.training.test_loop import QUICK, colours, finetune, tiny


def test_accelerate_launch_can_ask_for_the_cpu_beside_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert join_team().device == torch.device("cuda", 1)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert join_team().device == torch.device("cpu")


def test_a_device_has_one_name():
    assert join_team("cpu:0").device == join_team("cpu").device == torch.device("cpu")


def launched_on(monkeypatch, own):
    """As the second of two processes, which the launcher runs on a device."""
    monkeypatch.setattr("accelerate.PartialState", lambda: SimpleNamespace(device=torch.device(own)))
    monkeypatch.setattr(launch, "join_team", lambda device: Team(1, 2, torch.device(device or own)))


def test_several_processes_train_where_the_launcher_put_them(monkeypatch):
    launched_on(monkeypatch, "cuda:1")
    assert launch.training_team("cuda:1").size == 2
    with pytest.raises(ValueError, match=r"`device` must be left out where 2 processes train together.*got 'cuda:0'"):
        launch.training_team("cuda:0")


def test_a_first_call_on_the_cpu_does_not_keep_the_next_one_off_the_gpus_in_silence(monkeypatch):
    launched_on(monkeypatch, "cpu")
    assert launch.training_team("cpu").size == 2
    monkeypatch.setattr(launch, "best_device", lambda: torch.device("cuda", 1))
    with pytest.raises(ValueError, match="`device` must be what the first call of the process had"):
        launch.training_team(None)
    monkeypatch.setattr(launch, "best_device", lambda: torch.device("cpu"))
    assert launch.training_team(None).size == 2


def test_processes_on_other_machines_do_not_share_the_cores(monkeypatch):
    team = Team(3, 16, torch.device("cpu"))
    assert team.n_here == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert team.n_here == 8
    assert Team(0, 1, torch.device("cpu")).n_here == 1


@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("refit", [False, True])
def test_a_compiled_model_in_half_precision_can_be_used_after_it_was_trained(tmp_path, monkeypatch, refit):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    recipe = Recipe(compile=True, mixed_precision="bf16", refit=refit)
    result = finetune(tmp_path / "compiled", recipe=recipe)
    plain = finetune(tmp_path / "plain", recipe=recipe.changed(compile=False))
    assert result.metrics["validation_accuracy"] == plain.metrics["validation_accuracy"]


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_each_rate_that_is_tried_gives_its_model_and_gradients_back_at_once(tmp_path, monkeypatch, precision):
    from hf_zoosel.training import run

    models, left = [], []
    train = run.train

    def watched(loop):
        left.append(sum(one() is not None for one in models))
        models.append(weakref.ref(loop.model))
        progress = train(loop)
        assert all(p.grad is None for p in loop.model.parameters())
        assert "forward" not in vars(loop.model)
        return progress

    monkeypatch.setattr(run, "train", watched)
    gc.collect()
    gc.disable()  # what is held by a cycle alone would stay, on a GPU until its memory runs out
    try:
        options = QUICK | {"learning_rate": [0.01, 0.02, 0.03], "recipe": Recipe(mixed_precision=precision)}
        hf_zoosel.finetune(tiny(), colours(), output_dir=tmp_path / "out", **options)
    finally:
        gc.enable()
    assert len(left) == 3
    assert max(left) <= 1  # the best one so far
