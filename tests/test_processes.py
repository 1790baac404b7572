"""Real processes: two that share the work, one that is killed, and what an import costs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hf_zoosel.features import Team

ROOT = Path(__file__).parents[1]

TASK = """
import numpy as np, sys, time, json, os
from pathlib import Path
from hf_zoosel._torchvision import mend_torchvision
mend_torchvision()
import timm, torch
from torch import nn
from datasets import Dataset, Image, ClassLabel, Features
import hf_zoosel

random = np.random.default_rng(0)
labels = np.arange(30) % 3
images = random.integers(0, 60, (30, 40, 40, 3), dtype=np.uint8)
images[np.arange(30), :, :, labels] += 60
columns = {"image": list(images), "label": labels.tolist()}
dataset = Dataset.from_dict(columns, features=Features({"image": Image(), "label": ClassLabel(num_classes=3)}))

def tiny(seed, architecture="test_resnet"):
    torch.manual_seed(seed)
    return timm.create_model(architecture)
"""

SHARED = (
    TASK
    + """
cache, output = sys.argv[1:]
models = {"a": tiny(0), "b": tiny(1, "test_vit"), "bad": "/no/such/folder"}
ranking = hf_zoosel.rank_models(dataset, models, "all", cache=cache, progress=False)
ranking.save(f"{output}/{ranking.settings['processes']}-{os.environ.get('RANK', '0')}.json")
"""
)

SELECTED = (
    TASK
    + """
cache, output = sys.argv[1:]
torch.manual_seed(0)
network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
model = network, lambda image: torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) / 255
asked = {
    "samples": {"num_samples": 7},
    "semi_relaxed": {"num_samples": 7, "method": "semi_relaxed"},
    "nearest": {"num_samples": 7, "method": "nearest"},
    "random": {"num_samples": 7, "method": "random"},
    "clusters": {"num_classes": 2, "num_clusters": 6, "num_target_clusters": 2},
}
target = dataset.select(range(3, 12))
for data, kind in ((dataset, "table"), (dataset.to_iterable_dataset(), "stream")):
    for name, options in asked.items():
        selection = hf_zoosel.select_source(target, data, model, cache=cache, progress=False, **options)
        rank = os.environ.get("RANK", "alone")
        selection.save(f"{output}/{kind}-{name}-{rank}.json")
"""
)

KILLED = (
    TASK
    + """
cache, log, patience = sys.argv[1:]

class Logged(nn.Module):
    def __init__(self, name, seconds):
        super().__init__()
        self.name, self.seconds, self.head = name, seconds, nn.Linear(3, 4)
        nn.init.constant_(self.head.weight, len(name))
        nn.init.constant_(self.head.bias, 0)

    def forward(self, pixels):
        time.sleep(self.seconds)
        with open(log, "a") as file:
            file.write(f"{self.name} {len(pixels)}\\n")
        return self.head(pixels.mean(dim=(2, 3)))

def to_tensor(image):
    return torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1) / 255

models = {name: (Logged(name, 0.0), to_tensor) for name in ("one", "second")}
models["slow one"] = (Logged("slow one", float(patience)), to_tensor)
print(hf_zoosel.rank_models(dataset, models, cache=cache, progress=False).best.name)
"""
)


UNLIKE = (
    TASK
    + """
from PIL import Image as Pictures
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
try:
    hf_zoosel.rank_models(dataset.shuffle(seed=rank), {"a": tiny(0)}, cache=False, progress=False)
except ValueError as error:
    assert "same rows in the same order" in str(error)

raw = dataset.cast_column("image", Image(decode=False)).select(range(2 * size))
blank = lambda row, number: {"image": {"bytes": b"" if number % size == 1 else row["image"]["bytes"], "path": None}}
spoiled = raw.map(blank, with_indices=True).cast_column("image", Image())  # all rows of the second process

def one_fails(image):
    if rank == 2:
        raise KeyError("only here")
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)

one = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
models = {"fine": tiny(0), "own weights": tiny(rank), "one fails": (one, one_fails)}
ranking = hf_zoosel.rank_models(spoiled, models, cache=sys.argv[1], progress=False)
assert len(ranking.skipped_images) == 2, ranking
ranking.save(f"{sys.argv[1]}/{rank}.json")
"""
)


def environment(**more):
    variables = {k: v for k, v in os.environ.items() if k not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    return {**variables, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}


def run(command, **more):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("launcher", ["torch.distributed.run", "accelerate.commands.launch"])
def test_two_processes_share_the_images_and_return_the_same_ranking(tmp_path, launcher):
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    options = {
        "torch.distributed.run": ["--nproc-per-node", "2", "--master-port", "29611"],
        "accelerate.commands.launch": ["--multi_gpu", "--num_processes", "2", "--main_process_port", "29612"],
    }
    run([script, tmp_path / "cache-alone", tmp_path])
    run(["-m", launcher, *options[launcher], script, tmp_path / "cache-two", tmp_path])
    alone = json.loads((tmp_path / "1-0.json").read_text())
    first, second = (json.loads((tmp_path / f"2-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["settings"]["processes"] == 2
    assert [c["name"] for c in first["candidates"]] == [c["name"] for c in alone["candidates"]]
    for one, two in zip(alone["candidates"], first["candidates"], strict=True):
        assert one["error"] == two["error"]
        assert one["scores"].keys() == two["scores"].keys()
        for metric, score in one["scores"].items():
            assert two["scores"][metric] == pytest.approx(score, abs=1e-6)
    chunks = list((tmp_path / "cache-two").rglob("*.safetensors"))
    assert len(chunks) == 5  # two candidates, half of the rows each from each process, and the reference network's


def test_two_processes_choose_the_same_images_and_clusters_as_one(tmp_path):
    script = tmp_path / "selected.py"
    script.write_text(SELECTED)
    run([script, tmp_path / "cache-alone", tmp_path])
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29614"]
    run([*launcher, script, tmp_path / "cache-two", tmp_path])
    written = sorted(path.name.removesuffix("-alone.json") for path in tmp_path.glob("*-alone.json"))
    assert len(written) == 10
    for name in written:
        alone, first, second = (json.loads((tmp_path / f"{name}-{r}.json").read_text()) for r in ("alone", 0, 1))
        assert first == second
        assert first["rows"] == alone["rows"]
        if "clusters" in name:
            assert [one["mass"] for one in first["ranked"]] == pytest.approx([one["mass"] for one in alone["ranked"]])
        else:
            assert first["weights"] == pytest.approx(alone["weights"], rel=1e-5)
    shared = list((tmp_path / "cache-two").rglob("rows-*.safetensors"))
    assert len(shared) >= 3


def test_processes_that_differ_are_heard_on_all_of_them_and_none_hangs(tmp_path):
    script = tmp_path / "unlike.py"
    script.write_text(UNLIKE)
    run(["-m", "torch.distributed.run", "--nproc-per-node", "3", "--master-port", "29613", script, tmp_path])
    first, second, third = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3))
    assert first == second == third
    reasons = {c["name"]: c["error"] for c in first["candidates"]}
    assert reasons["fine"] is None
    assert "weights differ between the processes" in reasons["own weights"]
    assert "only here" in reasons["one fails"]


def test_a_run_that_is_killed_goes_on_where_it_stopped(tmp_path):
    script, log, cache = tmp_path / "killed.py", tmp_path / "log", tmp_path / "cache"
    script.write_text(KILLED)
    process = subprocess.Popen([sys.executable, str(script), str(cache), str(log), "60"], env=environment(), cwd=ROOT)
    deadline = time.monotonic() + 120
    while len(list(cache.rglob("*.safetensors"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = log.read_text().splitlines()
    assert {line.split()[0] for line in before} == {"one", "second"}
    log.unlink()
    assert run([script, cache, log, "0"]).strip() in {"one", "second", "slow one"}
    again = [line.rsplit(" ", 1) for line in log.read_text().splitlines()]
    assert {name for name, _ in again} == {"slow one"}
    assert sum(int(n) for _, n in again) == 30


def test_importing_the_package_imports_neither_torch_nor_a_hugging_face_library():
    heavy = "torch timm transformers datasets accelerate huggingface_hub evaluate numpy"
    code = f"import sys, hf_zoosel, hf_zoosel.cli; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert run(["-c", code]).strip() == "[]"


@pytest.mark.parametrize("room", ["metrics", "ranking"])
def test_level_zero_rooms_know_nothing_of_the_hugging_face_libraries(room):
    names = "timm transformers datasets accelerate huggingface_hub evaluate sklearn"
    code = f"import sys, hf_zoosel.{room}; print([m for m in '{names}'.split() if m in sys.modules])"
    assert run(["-c", code]).strip() == "[]"


def test_torchvision_imports_after_mending():
    code = (
        "from hf_zoosel._torchvision import mend_torchvision as m; import sys; assert 'torch' not in sys.modules; "
        "m(); import torchvision, timm; assert not m(); print('ok')"
    )
    assert run(["-c", code]).strip() == "ok"


def test_rows_without_columns_are_gathered_without_accelerate_which_cannot(monkeypatch):
    """On GPUs its gather reshapes to ``(-1, 0)``, which torch refuses."""
    monkeypatch.setattr(Team, "gather", lambda self, item: [item, (2, 0)])
    monkeypatch.setattr("accelerate.utils.gather", lambda rows: pytest.fail("nothing is to be sent"))
    rows = Team(0, 2, torch.device("cpu")).gather_rows(torch.zeros(3, 0))
    assert rows.shape == (5, 0)
