"""The command behind the tables of README: it resumes, pairs what it compares, and trains its own small networks."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from tests.test_finetune import colours

SCRIPT = Path(__file__).parents[1] / "examples" / "compare_methods.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compare_methods", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, n_classes, n, seed):
    """A data set of noise of as many classes, with a train and a test split."""
    folder.mkdir()
    for split in ("train", "test"):
        colours(n, [f"{folder.name}-{i}" for i in range(n_classes)], seed).to_parquet(folder / f"{split}.parquet")
    return str(folder)


@pytest.mark.parametrize("network", ["weak", "self-supervised"])
def test_it_trains_its_network_compares_and_goes_on(script, network, tmp_path, monkeypatch, capsys):
    target, source = write(tmp_path / "target", 2, 20, 0), write(tmp_path / "source", 5, 20, 1)
    out = tmp_path / "out"
    arguments = f"--targets {target} --source {source} --network {network} --shots 8 --seeds 0 --rates 0.01 --epochs 1"
    command = ["compare_methods.py", *arguments.split(), "--num_source_classes", "2", "--output", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--methods", "plain", "uot mix"])
    script.main()
    rows = [json.loads(line) for line in (out / "rows-1.jsonl").read_text().splitlines()]
    assert [(row["method"], row["mixed"], row["n_train"]) for row in rows] == [
        ("plain", False, 12),
        ("uot mix", True, 12),
    ]
    assert (out / network / "model.safetensors").is_file()
    assert "uot mix" in capsys.readouterr().out
    with (out / "rows-1.jsonl").open("a") as file:
        file.write('{"network": "we')  # cut off by a kill
    monkeypatch.setattr(script, "run", lambda *_: pytest.fail("what is there is not done again"))
    script.main()
    assert "uot mix" in capsys.readouterr().out


def test_images_are_turned_by_quarters(script, tmp_path):
    data = script.turned(write(tmp_path / "source", 5, 8, 1))["train"]
    before = script.load_dataset(str(tmp_path / "source"))["train"]
    assert data["label"][:5] == [0, 1, 2, 3, 0]
    for i, row in enumerate(data):
        assert np.array_equal(np.asarray(row["image"]), np.rot90(np.asarray(before[i]["image"]), i % 4))


def test_gains_are_paired(script):
    rng = np.random.default_rng(0)
    rows, plain = [], {}
    for target in ("a", "b"):
        for seed in range(3):
            plain[target, seed] = rng.uniform(0.2, 0.8)
            better = plain[target, seed] + rng.normal(0.03, 0.01)
            setting = dict.fromkeys(script.SETTING, 0) | {"target": target, "seed": seed}
            rows.append(setting | {"method": "plain", "test_accuracy": plain[target, seed]})
            rows.append(setting | {"method": "uot mix", "test_accuracy": better})
    gains = [100 * (row["test_accuracy"] - plain[row["target"], row["seed"]]) for row in rows[1::2]]
    low, high = ttest_1samp(gains, 0).confidence_interval(0.95)
    assert f"{np.mean(gains):+.1f} [{low:+.1f}, {high:+.1f}] (n = 6)" in script.table(rows)
    assert f"{-np.mean(gains):+.1f} [{-high:+.1f}, {-low:+.1f}] (n = 6)" in script.table(rows, "uot mix")
    assert "(n = 5)" in script.table(rows[:-2] + rows[-2:-1])  # a row that is not there yet


def test_tables_of_readme_are_those_of_the_rows(script):
    root = SCRIPT.parents[1]
    tables = script.table(script.read_rows(root / "examples" / "comparison"))
    readme = (root / "README.md").read_text()
    assert tables.count("plain") >= 3
    assert [line for line in tables.splitlines() if line not in readme] == []
