"""examples/finetune.py as a person starts it: selects, trains, measures, pushes; what comes out loads in timm."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from datasets import Dataset
from timm.data import create_transform, resolve_data_config

from tests.loopback_hub.repository import Repository
from tests.loopback_hub.server import serve
from tests.test_finetune import NAMES, colours

ROOT = Path(__file__).parents[1]
CONFIGS = b"""---
configs:
- config_name: bright
  data_files:
  - {split: train, path: bright/train.parquet}
  - {split: test, path: bright/test.parquet}
- {config_name: dark, data_files: dark/*}
---
"""


def write(folder, names, n, seed):
    """Noise in which one colour stands out, as a data set on disk with a train and a test split."""
    folder.mkdir()
    for split, more in (("train", 0), ("test", 1)):
        colours(n, names, seed + more).to_parquet(folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    write(folder / "target", NAMES, 48, 0)
    write(folder / "source", ["warm", "cold", "dark", "light"], 40, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        timm.models.save_for_hf(
            timm.create_model("test_resnet", num_classes=6), folder / "model", safe_serialization=True
        )
    return folder


def start(root, *arguments, launcher=(), **variables):
    own = {k: v for k, v in os.environ.items() if k not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    common = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "HF_HOME": str(root / "home")}
    return subprocess.run(
        [sys.executable, *launcher, "examples/finetune.py", *map(str, arguments)],
        env=own | common | variables,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )


def accuracy_by_timm(folder, data):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=model))
    with torch.inference_mode():
        predicted = model(torch.stack([transform(row["image"]) for row in data])).argmax(dim=1)
    return float(np.mean(predicted.numpy() == np.array(data["label"])))


@pytest.mark.parametrize("n_processes", [1, 2])
def test_it_selects_trains_measures_and_pushes(root, n_processes, tmp_path):
    out = tmp_path / f"colours-{n_processes}"
    processes = ["--num_processes", str(n_processes), "--main_process_port", "29661"]
    launcher = ["-m", "accelerate.commands.launch", *(["--multi_gpu"] if n_processes == 2 else []), *processes]
    options = "--select uot --select_options center=true --num_source_classes 2 --source_weight 0.3 --image_size 32"
    recipe = "--epochs 8 --batch_size 8 --learning_rate 0.02 --recipe head_rate=3 schedule=cosine"
    others = "--regularizers l2_sp=0.001 --num_workers 0"
    data = ["--model", root / "model", "--dataset", "org/colours:bright@main", "--source", root / "source"]
    others += " --source_split train --source_label_column label --keep_source_head"
    with serve() as hub:
        files = {f"bright/{file.name}": file.read_bytes() for file in (root / "target").iterdir()}
        hub.repositories["datasets/org/colours"] = Repository()
        hub.repositories["datasets/org/colours"].commit({"README.md": CONFIGS, **files})
        done = start(
            root,
            *(*data, *options.split(), *recipe.split(), *others.split(), "--output_dir", out, "--push_to_hub"),
            launcher=launcher,
            HF_ENDPOINT=hub.url,
            HF_TOKEN="hf_me",
            HF_HUB_OFFLINE="0",
            HF_HUB_DISABLE_XET="1",
        )
        assert done.returncode == 0, done.stderr[-3000:]
        repository = hub.repositories[f"me/{out.name}"]
        assert {"model.safetensors", "config.json", "README.md"} <= set(repository.files())
        assert f"hf-hub:me/{out.name}" in repository.files()["README.md"].decode()  # though no owner was named
        local_card = (out / "README.md").read_text()
    assert "local-dir:." in local_card
    assert "\n# model-colours\n" in local_card  # the data set's name alone, in a title
    results = json.loads((out / "all_results.json").read_text())
    assert results["metrics"]["test_accuracy"] > 0.8
    assert len(results["source_classes"]) == 2
    assert done.stdout.count("/commit/") == 1  # one process prints and pushes
    data = Dataset.from_parquet(str(root / "target" / "test.parquet"), cache_dir=tmp_path)
    assert accuracy_by_timm(out, data) == pytest.approx(results["metrics"]["test_accuracy"], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--select", "uot"], "name it"),
        (["--source", "TARGET", "--select", "uot", "--selection", "saved.json"], "not allowed with argument --select"),
        (["--label_column", "species"], "label_column"),
        (["--recipe", "momentun=0.9"], "momentun"),
        (["--source", "TARGET", "--method", "plain"], "source"),
        (["--learning_rate", "-1"], "learning_rate"),
        (["--push_to_hub", "a b"], "`repo_id` must be"),
        (["--push_to_hub", "me/birds"], "HF_HUB_OFFLINE is set"),
        (["--source", "TARGET", "--select", "uot", "--select_options", "scale=abc"], "`scale` must be of type float"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(root, arguments, words, tmp_path):
    arguments = [root / "target" if one == "TARGET" else one for one in arguments]
    given = ["--model", root / "model", "--dataset", root / "target", "--output_dir", tmp_path / "out"]
    done = start(root, *given, *arguments, HF_HUB_OFFLINE="1")
    assert done.returncode != 0
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "model.safetensors").exists()
