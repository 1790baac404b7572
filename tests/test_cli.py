import json
import re

import numpy as np
import pytest
import timm
from PIL import Image

from hf_zoosel.cli import main


@pytest.fixture
def folder(tmp_path):
    """An imagefolder with two colours, ten pictures each."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("green", "red")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 60, (40, 40, 3), dtype=np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture
def model(tmp_path):
    timm.models.save_for_hf(timm.create_model("test_resnet"), tmp_path / "model", safe_serialization=True)
    return tmp_path / "model"


def test_rank_prints_a_table_and_writes_json_and_plot(folder, model, tmp_path, capsys):
    output, plot = tmp_path / "out" / "ranking.json", tmp_path / "out" / "ranking.png"
    words = ["rank", "--dataset", folder, "--models", model, "/no/such/model", "--metric", "lfc", "leep", "logme"]
    code = main([*map(str, words), "--output", str(output), "--plot", str(plot), "--quiet"])
    printed = capsys.readouterr().out
    assert code == 0
    assert "logme" in printed
    assert "there is no folder /no/such/model" in printed
    assert [c["name"] for c in json.loads(output.read_text())["candidates"]] == [str(model), "/no/such/model"]
    assert plot.stat().st_size > 10_000


def test_bad_input_is_one_line_and_exit_code_two(folder, model, capsys):
    assert main(["rank", "--dataset", str(folder), "--models", str(model), "--metric", "lfcc", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hf-zoosel: `metric` must be one of")
    assert "Traceback" not in error


def test_a_data_set_that_does_not_exist_is_exit_code_two(model, capsys):
    assert main(["rank", "--dataset", "./nothing", "--models", str(model), "--quiet"]) == 2
    assert "./nothing" in capsys.readouterr().err or "nothing" in capsys.readouterr().err


def test_nothing_ranked_is_exit_code_one(folder, capsys):
    assert main(["rank", "--dataset", str(folder), "--models", "/no/such/model", "--quiet"]) == 1


def test_nothing_ranked_is_exit_code_one_even_where_a_plot_was_asked_for(folder, tmp_path, capsys):
    words = ["rank", "--dataset", str(folder), "--models", "/no/such/model", "--quiet"]
    assert main([*words, "--plot", str(tmp_path / "plot.png")]) == 1
    assert "there is no folder" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_exit_code_two_and_the_table_is_not_lost(folder, model, capsys):
    words = ["rank", "--dataset", str(folder), "--models", str(model), "--quiet"]
    assert main([*words, "--output", str(model / "config.json" / "ranking.json")]) == 2
    printed = capsys.readouterr()
    assert "p(best)" in printed.out
    assert printed.err.startswith("hf-zoosel: ")


def test_quiet_is_silent_on_stderr(folder, model, capfd):
    assert main(["rank", "--dataset", str(folder), "--models", str(model), "--quiet", "--no-cache"]) == 0
    assert capfd.readouterr().err == ""


def test_a_count_that_is_none_says_what_it_may_be(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["rank", "--dataset", str(folder), "--max-per-class", "x"])
    assert stop.value.code == 2
    assert "must be a whole number or all, got 'x'" in capsys.readouterr().err


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "rank" in capsys.readouterr().out


def test_select_prints_what_it_chose_and_writes_json_plot_and_sheet(folder, model, tmp_path, capsys):
    files = {name: tmp_path / f"selection.{ending}" for name, ending in (("output", "json"), ("plot", "png"))}
    sheet = tmp_path / "sheet.png"
    words = ["select", "--dataset", folder, "--source", folder, "--model", model, "--num-classes", 1, "--quiet"]
    words += ["--cache-dir", tmp_path / "cache", "--sheet", sheet, "--options", "center=true", "scale=0.03"]
    words += [word for name, file in files.items() for word in (f"--{name}", file)]
    assert main([*map(str, words)]) == 0
    printed = capsys.readouterr().out
    assert "same data set" in printed
    written = json.loads(files["output"].read_text())
    assert written["n_chosen"] == 1
    assert (written["options"]["center"], written["options"]["scale"]) == (True, 0.03)
    assert files["plot"].stat().st_size > 5_000
    with Image.open(sheet) as image:
        assert image.width > 100


def test_select_takes_single_images_and_the_names_of_columns(folder, model, tmp_path, capsys):
    words = ["select", "--dataset", folder, "--source", folder, "--model", model, "--num-samples", 3, "--quiet"]
    words += ["--cache-dir", tmp_path / "cache", "--source-image-column", "image", "--source-label-column", "label"]
    words += [word for name in ("sheet", "plot") for word in (f"--{name}", tmp_path / f"{name}.png")]
    assert main([*map(str, words)]) == 0
    assert "samples of" in capsys.readouterr().out
    assert all((tmp_path / f"{name}.png").stat().st_size > 1_000 for name in ("sheet", "plot"))
    assert main([*map(str, [*words, "--source-label-column", "nowhere"])]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_select_with_a_model_that_does_not_exist_is_exit_code_two(folder, tmp_path, capsys):
    words = ["select", "--dataset", folder, "--source", folder, "--model", "/no/such/model", "--quiet"]
    assert main([*map(str, words)]) == 2
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "message"), [("a b", "`repo_id` must be"), ("me/birds", "HF_HUB_OFFLINE is set")])
def test_what_could_not_be_pushed_to_is_said_before_training(name, message, folder, model, tmp_path, capsys):
    words = [
        "finetune",
        "--dataset",
        folder,
        "--model",
        model,
        "--output-dir",
        tmp_path / "out",
        "--push-to-hub",
        name,
    ]
    assert main([*map(str, words)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("scale=abc", "`scale` must be of type float, got 'abc'"),
        ("scale=-1", "`scale` must be finite and above 0, got -1.0"),
        ("scael=1", "must be some of .* Did you mean 'scale'"),
        ("scale", "`options` must be name=value, got 'scale'"),
    ],
)
def test_a_wrong_option_of_a_selection_is_one_line_and_exit_code_two(option, message, folder, model, capsys):
    words = ["select", "--dataset", folder, "--source", folder, "--model", model, "--options", option, "--quiet"]
    assert main([*map(str, words)]) == 2
    assert re.search(f"^hf-zoosel: .*{message}", capsys.readouterr().err)


def test_a_selection_from_a_file_needs_its_source_and_a_split_that_is_not_there_is_refused(
    folder, model, tmp_path, capsys
):
    words = ["finetune", "--dataset", folder, "--model", model, "--output-dir", tmp_path / "out", "--quiet"]
    for more, message in (
        (["--selection", tmp_path / "selection.json"], "`--selection` must stand beside `--source`"),
        (["--test", "tset"], "`test` must be one of"),
        (["--validation", "valid"], "`validation` must be one of"),
        (["--source", tmp_path / "nowhere"], "`source` must be an existing path"),
    ):
        assert main([*map(str, [*words, *more])]) == 2
        assert message in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(folder, model, tmp_path, capsys):
    select = ["select", "--dataset", folder, "--source", folder, "--model", model, "--cache-dir", tmp_path / "cache"]
    for words, message in (
        ([*select, "--sheet", tmp_path / "sheet.what"], "`--sheet` must end in one of"),
        ([*select, "--plot", tmp_path / "plot"], "`--plot` must end in one of"),
        ([*select, "--num-clusters", 2, "--sheet", tmp_path / "sheet.png"], "`--sheet` must be left out for clusters"),
        ([*select, "--num-classes", "all"], "take the whole source by method='all'"),
    ):
        assert main([*map(str, words)]) == 2
        assert message in capsys.readouterr().err
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
