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


def test_an_overview_has_settings_of_enough_seeds_and_the_gains_of_the_tables(script):
    rng = np.random.default_rng(0)
    rows = [
        dict.fromkeys(script.SETTING, 0)
        | {"network": network, "shots": shots, "target": target, "seed": seed, "method": method}
        | {"test_accuracy": rng.uniform(0.2, 0.8)}
        for network, shots, seeds in (("a", 5, 3), ("a", 20, 3), ("a", 0, 2), ("b", 5, 1))
        for seed in range(seeds)
        for target in ("one", "two")
        for method in ("plain", "uot mix")
    ]
    lines = script.overview(rows).splitlines()
    assert lines[0] == "`a`, 0 px, 0 epochs, rates 0, 0 classes of 0 at weight 0:"  # what both have in common
    assert len(lines) == 6  # one network, two methods, two settings
    assert lines[2] == "|  | 5 images a class, one and two | 20 images a class, one and two |"
    columns = [[line.split("|")[i].strip() for line in lines[4:]] for i in (2, 3)]
    tables = script.table(rows)
    for shots, (plain, gain) in zip((5, 20), columns, strict=True):
        one = script.table([row for row in rows if row["shots"] == shots and row["network"] == "a"])
        assert one in tables
        assert f"| {plain} |  |" in one
        assert one.rstrip().endswith(f"| {gain} |")


def test_the_tables_that_are_shown_are_those_of_the_rows(script):
    root = SCRIPT.parents[1]
    rows = script.read_rows(root / "examples" / "comparison")
    for text, page in ((script.overview(rows), "README.md"), (script.table(rows), "examples/comparison/README.md")):
        shown = (root / page).read_text()
        assert text.count("plain") >= 3
        assert [line for line in text.splitlines() if line not in shown] == []
