"""finetune in real processes: killed and started again, and shared by two."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]

SCRIPT = """
import sys, warnings
import numpy as np
from hf_zoosel._torchvision import mend_torchvision
mend_torchvision()
import timm, torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
import hf_zoosel
from hf_zoosel.training import Recipe

def colours(n, names, seed):
    labels = np.arange(n) % len(names)
    images = np.random.default_rng(seed).integers(0, 60, (n, 24, 24, 3), dtype=np.uint8)
    images[np.arange(n), :, :, labels % 3] += 90
    columns = {"image": list(images), "label": labels.tolist()}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "label": ClassLabel(names=names)}))

torch.manual_seed(0)
model = timm.create_model("test_resnet", num_classes=6, drop_rate=0.2)  # dropout draws at random
data = DatasetDict(train=colours(48, list("abc"), 0), test=colours(31, list("abc"), 1))
result = hf_zoosel.finetune(
    model, data, source=colours(30, list("xyz"), 2), output_dir=sys.argv[1], image_size=32, batch_size=16,
    epochs=int(sys.argv[2]), learning_rate=0.02, num_workers=1, progress=False,
    recipe=Recipe(batch_norm=sys.argv[3], regularizers={"l2_sp": 0.01}),
    checkpointing_steps=int(sys.argv[4]) if len(sys.argv) > 4 else 1000,
)
print(result.metrics["test_accuracy"])
"""
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"],
    "accelerate": ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port"],
}


def environment():
    variables = {k: v for k, v in os.environ.items() if k not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return {**variables, **settings, "CUDA_VISIBLE_DEVICES": ""}  # two of them cannot share one GPU


def command(script, folder, *options, launcher=None, port=0):
    launch = [] if launcher is None else [*LAUNCHERS[launcher], str(port)]
    return [sys.executable, *launch, str(script), str(folder), *map(str, options)]


def finish(*arguments, **launch):
    done = subprocess.run(
        command(*arguments, **launch), env=environment(), capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def kill_at_checkpoint(folder, *arguments, after=1, **launch):
    """Start, and kill -9 all of it once a number of checkpoints were seen."""
    process = subprocess.Popen(
        command(*arguments, **launch),
        env=environment(),
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seen, deadline = set(), time.monotonic() + 200
    while len(seen) < after:
        seen |= {path.name for path in folder.rglob("step-*.safetensors")}
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(random.random() * 0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_run_that_is_killed_twice_ends_in_the_very_weights_of_one_that_is_not(script, tmp_path):
    finish(script, tmp_path / "whole", 8, "joint")
    killed = tmp_path / "killed"
    for after, every in ((1, 1000), (3, 1)):  # at the end of an epoch, and within one
        kill_at_checkpoint(killed, script, killed, 8, "joint", every, after=after)
        assert not (killed / "model.safetensors").exists()
    finish(script, killed, 8, "joint")
    one, other = weights(tmp_path / "whole"), weights(killed)
    assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = (json.loads((tmp_path / name / "all_results.json").read_text()) for name in ("whole", "killed"))
    assert first["metrics"] == second["metrics"]
    timing = {"seconds", "images_per_second", "waited"}
    for before, after in zip(first["history"], second["history"], strict=True):
        assert {k: v for k, v in before.items() if k not in timing} == {
            k: v for k, v in after.items() if k not in timing
        }
    assert not (killed / "runs").exists()


@pytest.mark.parametrize(("launcher", "norms"), [("torchrun", "separate"), ("accelerate", "frozen")])
def test_two_processes_killed_and_started_again_end_in_the_same_weights(script, tmp_path, launcher, norms):
    port = {"torchrun": 29631, "accelerate": 29633}[launcher]
    finish(script, tmp_path / "whole", 4, norms, launcher=launcher, port=port)
    killed = tmp_path / "killed"
    kill_at_checkpoint(killed, script, killed, 4, norms, 1, launcher=launcher, port=port + 1)
    finish(script, killed, 4, norms, launcher=launcher, port=port)
    one, other = weights(tmp_path / "whole"), weights(killed)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6)
    assert "on 2 processes" in json.loads((killed / "all_results.json").read_text())["notes"][-1]


def test_frozen_statistics_give_the_same_weights_on_one_process_and_on_two(script, tmp_path):
    """Without statistics of a batch, and dropout apart, how a batch is shared out changes nothing but rounding."""
    text = SCRIPT.replace(", drop_rate=0.2", "")
    script.write_text(text)
    finish(script, tmp_path / "one", 3, "frozen")
    finish(script, tmp_path / "two", 3, "frozen", launcher="torchrun", port=29641)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-5)


def test_processes_that_do_not_share_a_folder_are_told_so_before_they_train(script, tmp_path):
    script.write_text("import os\nos.chdir(os.environ['PLACE' + os.environ['RANK']])\n" + SCRIPT)
    places = {f"PLACE{rank}": str(tmp_path / f"machine-{rank}") for rank in (0, 1)}
    for place in places.values():
        Path(place).mkdir()
    done = subprocess.run(
        command(script, "out", 1, "joint", launcher="torchrun", port=29643),
        env=environment() | places | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0
    assert "`output_dir` must be one folder for all processes" in done.stderr
    assert "processes [1] do not see" in done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))
