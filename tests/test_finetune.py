"""finetune end to end, on small real networks."""

import json
import math
import re

import numpy as np
import pytest
import timm
import torch
import transformers
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as Pillow
from safetensors.torch import load_file
from torch import nn

import hf_zoosel
from hf_zoosel.ranking import Ranking
from hf_zoosel.selection import SourceSelection
from hf_zoosel.tasks.rows import open_rows
from hf_zoosel.training import DivergedError, FinetuneResult, Recipe
from hf_zoosel.zoo import CandidateError, resolve

NAMES = ["red", "green", "blue"]
QUICK = {"epochs": 2, "batch_size": 8, "image_size": 32, "device": "cpu", "num_workers": 0, "progress": False}


def colours(n=36, names=NAMES, seed=0, dim=60):
    """Noise in which one colour stands out, of each class as many."""
    labels = np.arange(n) % len(names)
    images = np.random.default_rng(seed).integers(0, dim, (n, 32, 32, 3), dtype=np.uint8)
    for colour in range(3):
        images[labels % 3 == colour, :, :, colour] += 90
    columns = {"image": list(images), "label": labels.tolist()}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "label": ClassLabel(names=names)}))


def tiny(name="test_resnet", **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(name, **arguments)


def chosen_before(view=None):
    """Three single images of 36, as a file holds a selection, or with its data."""
    made_from = {"source_images": open_rows(colours()).images_digest}
    chosen = {"unit": "sample", "rows": (0, 1, 5), "weights": (0.5, 0.3, 0.2), "revisions": made_from, "view": view}
    return SourceSelection("uot", 0, (), (), n_effective=2.6, **chosen)


def weights(result):
    return load_file(result.folder / "model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One joint run that the tests below look at: it must learn colours."""
    data = DatasetDict(train=colours(48), test=colours(30, seed=1))
    return hf_zoosel.finetune(
        tiny(num_classes=6),
        data,
        source=colours(30, ["warm", "cold", "dark"], seed=2),
        output_dir=tmp_path_factory.mktemp("trained") / "out",
        **QUICK | {"epochs": 8},
        recipe=Recipe(regularizers={"l2_sp": 1e-3}, head_rate=3.0, schedule="cosine", learning_rate=0.02),
    )


def test_it_learns_and_says_what_it_did(trained):
    assert trained.metrics["test_accuracy"] > 0.8
    assert trained.interval[0] < trained.metrics["test_accuracy"] <= trained.interval[1]
    assert trained.method == "joint"
    assert trained.source_classes == ("warm", "cold", "dark")
    assert [row["epoch"] for row in trained.history] == list(range(1, 9))
    assert {"target", "source", "l2_sp", "validation_accuracy", "waited"} <= set(trained.history[0])
    assert "joint" in str(trained)
    assert len(trained.to_pandas()) == 8


def test_the_losses_of_an_epoch_add_up(trained):
    for row in trained.history:
        assert row["loss"] == pytest.approx(row["target"] + row["source"] + row["l2_sp"], rel=1e-5)


def test_the_folder_loads_in_timm_and_gives_the_reported_accuracy_again(trained):
    module = timm.create_model(f"local-dir:{trained.folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)
    test = colours(30, seed=1)
    with torch.inference_mode():
        said = [module(transform(row["image"])[None]).argmax().item() for row in test]
    assert module.pretrained_cfg["label_names"] == NAMES
    assert np.mean(np.array(said) == test["label"]) == pytest.approx(trained.metrics["test_accuracy"])


def test_the_folder_loads_in_transformers_and_gives_the_reported_accuracy_again(trained):
    classify = transformers.pipeline("image-classification", str(trained.folder))
    test = colours(30, seed=1)
    said = [classify(row["image"])[0]["label"] for row in test]
    right = [word == NAMES[label] for word, label in zip(said, test["label"], strict=True)]
    assert np.mean(right) == pytest.approx(trained.metrics["test_accuracy"])


def test_the_folder_can_be_ranked_and_fine_tuned_again(trained, tmp_path):
    again = hf_zoosel.finetune(trained.folder, colours(), output_dir=tmp_path / "out", **QUICK)
    assert again.class_names == tuple(NAMES)


def test_the_card_names_base_data_source_and_results(trained):
    card = (trained.folder / "README.md").read_text()
    for word in ("ResNet", "warm", f"{trained.metrics['test_accuracy']:.4f}", "l2_sp", "timm"):
        assert word in card


def test_the_record_is_read_back_as_it_was(trained):
    assert FinetuneResult.load(trained.folder) == trained
    assert json.loads((trained.folder / "all_results.json").read_text())["schema"] == 1


def test_a_plot_shows_the_terms_and_the_accuracy(trained, tmp_path):
    figure = trained.plot(tmp_path / "history.png")
    assert len(figure.axes) == 2
    assert (tmp_path / "history.png").stat().st_size > 1000


def test_a_tracker_of_accelerate_hears_of_every_epoch(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = hf_zoosel.finetune(tiny(), colours(), log_with="tensorboard", output_dir=tmp_path / "out", **QUICK)
    (file,) = (result.folder / "logs").rglob("events*.0")
    events = EventAccumulator(str(file)).Reload()
    heard = [event.value for event in events.Scalars("validation_accuracy")]
    assert heard == pytest.approx([row["validation_accuracy"] for row in result.history])


def test_the_same_call_returns_its_result_without_training(tmp_path):
    call = {"model": tiny(), "dataset": colours(), "output_dir": tmp_path / "out", **QUICK}
    first = hf_zoosel.finetune(**call)
    written = (first.folder / "model.safetensors").stat().st_mtime_ns
    assert hf_zoosel.finetune(**call) == first
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == written


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    made = [
        weights(hf_zoosel.finetune(tiny(), colours(), seed=seed, output_dir=tmp_path / str(i), **QUICK))
        for i, seed in enumerate((0, 0, 1))
    ]
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert any(not torch.equal(made[0][name], made[2][name]) for name in made[0])


def test_training_leaves_random_state_and_the_module_it_was_given_alone(tmp_path):
    module = tiny()
    before, state = [p.clone() for p in module.parameters()], torch.get_rng_state()
    hf_zoosel.finetune(module, colours(), output_dir=tmp_path / "out", **QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, other) for one, other in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"recipe": Recipe(batch_norm="separate", regularizers={"delta": 0.1, "l2_sp": 0.01})},
        {"recipe": Recipe(batch_norm="frozen", source_decay=True, accumulation=2)},
        {"method": "co-tuning", "recipe": Recipe(relationship="direct")},
        {"method": "co-tuning"},
        {"method": "consistency"},
        {"recipe": Recipe(refit=True, patience=1, max_grad_norm=1.0, warmup=0.2)},
        {"regularizers": ["bss", "lwf=0.5", "mars", "stoch_norm", "delta_attention"]},
        {"recipe": Recipe(mixed_precision="bf16", label_smoothing=0.1)},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_every_way_to_train_ends_in_a_model_that_loads(options, tmp_path):
    source = colours(24, ["warm", "cold", "dark"], seed=2)
    result = hf_zoosel.finetune(
        tiny(num_classes=6), colours(), source=source, output_dir=tmp_path / "out", **QUICK | {"epochs": 1}, **options
    )
    assert all(math.isfinite(value) for row in result.history for value in row.values())
    module = timm.create_model(f"local-dir:{result.folder}", pretrained=True)
    assert set(module.state_dict()) == set(timm.create_model("test_resnet", num_classes=3).state_dict())
    assert (result.folder / "relationship.csv").is_file() == (options.get("method") == "co-tuning")


def own_module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stem = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*stem, nn.Linear(8, 4))


def as_tensor(image):
    return torch.from_numpy(np.asarray(image.resize((32, 32)), dtype=np.float32)).permute(2, 0, 1) / 255


def transformers_resnet(folder):
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ResNetForImageClassification(config).save_pretrained(folder)
    transformers.ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=1.0).save_pretrained(folder)
    return folder


def test_candidates_of_every_kind_are_trained(tmp_path):
    kinds = {
        "vit": tiny("test_vit", img_size=32),
        "headless": tiny(num_classes=0),
        "folder": transformers_resnet(tmp_path / "checkpoint"),
    }
    for name, model in kinds.items():
        size = {} if name == "folder" else {"image_size": 32}
        options = {key: value for key, value in QUICK.items() if key != "image_size"} | size | {"epochs": 1}
        result = hf_zoosel.finetune(model, colours(), output_dir=tmp_path / name, **options)
        classify = transformers.pipeline("image-classification", str(result.folder))
        assert {one["label"] for one in classify(Pillow.new("RGB", (32, 32)))} == set(NAMES)


def test_a_module_of_ones_own_is_trained_with_its_transform(tmp_path):
    options = {key: value for key, value in QUICK.items() if key != "image_size"}
    with pytest.warns(UserWarning, match="is no configuration that can be written"):
        result = hf_zoosel.finetune((own_module(), as_tensor), colours(), output_dir=tmp_path / "out", **options)
    assert weights(result)["5.weight"].shape == (3, 8)
    with pytest.raises(CandidateError, match="weights of a module that only your own code builds"):
        resolve(str(result.folder), "mine").load()


def test_the_relationship_is_calibrated_only_where_ten_images_a_class_are_held_out(tmp_path):
    few, many = (
        hf_zoosel.finetune(
            tiny(num_classes=6), colours(n), method="co-tuning", validation=0.5, output_dir=tmp_path / str(n), **QUICK
        )
        for n in (48, 72)
    )
    assert any("by the direct way" in note for note in few.notes)
    assert any("by the reverse way" in note for note in many.notes)


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path):
    rows = [{"bytes": b"no image", "path": None} if i in (3, 7) else row for i, row in enumerate(encoded(colours()))]
    data = Dataset.from_dict({"image": rows, "label": colours()["label"]}).cast_column("image", Image())
    result = hf_zoosel.finetune(tiny(), data, output_dir=tmp_path / "out", validation=None, **QUICK)
    assert any("2 images could not be read" in note for note in result.notes)


def encoded(data):
    return data.cast_column("image", Image(decode=False))["image"][:]


def test_a_rate_that_diverges_stops_with_the_step_and_leaves_no_weights_behind(tmp_path):
    with pytest.raises(DivergedError, match=r"`learning_rate` must keep the loss finite, got (nan|inf) at step \d+"):
        hf_zoosel.finetune(tiny(), colours(), learning_rate=1e12, output_dir=tmp_path / "out", **QUICK)
    assert not list((tmp_path / "out").rglob("weights.safetensors"))


def test_of_several_rates_the_best_on_validation_is_taken_and_one_that_diverges_is_a_row(tmp_path):
    result = hf_zoosel.finetune(
        tiny(), colours(48), learning_rate=[1e12, 1e-6, 0.05], output_dir=tmp_path / "out", **QUICK | {"epochs": 6}
    )
    tried = {row["learning_rate"]: row for row in result.trials}
    assert tried[1e12]["note"] == "diverged"
    assert result.recipe["learning_rate"] == max(
        (rate for rate in (1e-6, 0.05)), key=lambda rate: tried[rate]["validation_accuracy"]
    )
    assert result.metrics["validation_accuracy"] == tried[result.recipe["learning_rate"]]["validation_accuracy"]


def test_an_automatic_source_weight_is_chosen_in_a_race_that_plain_training_wins_unless_beaten(tmp_path):
    result = hf_zoosel.finetune(
        tiny(), colours(48), source=colours(24, seed=5), source_weight="auto", output_dir=tmp_path / "out", **QUICK
    )
    assert [row["source_weight"] for row in result.trials] == [0.0, 0.1, 0.3, 1.0]
    mixed = result.source is not None
    assert any(("the source is mixed in" if mixed else "the source is not mixed in") in note for note in result.notes)


class Cramped(nn.Module):
    """Has memory for eight images at a time."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, 4), nn.Linear(4, 3)

    def forward(self, pixels):
        if self.training and len(pixels) > 8:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return self.head(self.conv(pixels).relu().mean(dim=(2, 3)))


@pytest.mark.filterwarnings("ignore:the preprocessing of")
def test_when_memory_runs_out_a_step_is_made_in_smaller_passes_to_the_same_weights(tmp_path):
    options = {key: value for key, value in QUICK.items() if key != "image_size"} | {"batch_size": 24}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Cramped()
    made = [
        hf_zoosel.finetune(
            (module, as_tensor), colours(), validation=None, recipe=recipe, output_dir=tmp_path / str(i), **options
        )
        for i, recipe in enumerate((Recipe(), Recipe(accumulation=4)))
    ]
    assert all(torch.equal(one, weights(made[1])[name]) for name, one in weights(made[0]).items())


def test_it_says_what_was_mixed_in_and_what_was_not_measured(tmp_path):
    once = QUICK | {"epochs": 1}
    images = hf_zoosel.finetune(
        tiny(), colours(seed=3), source=chosen_before(), source_data=colours(), output_dir=tmp_path / "images", **once
    )
    assert "with 3 images of source, joint" in str(images)
    assert any("there is no test split with rows" in note for note in images.notes)
    alone = hf_zoosel.finetune(tiny(), colours(), validation=None, test=None, output_dir=tmp_path / "alone", **once)
    assert "not measured: nothing was held out" in str(alone)
    assert not any("test" in note for note in alone.notes)


def test_a_folder_that_holds_another_run_is_refused_with_the_difference(tmp_path):
    hf_zoosel.finetune(tiny(), colours(), output_dir=tmp_path / "out", **QUICK)
    for change, difference in (
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"validation": 0.3}, "validation was 0.2 and is 0.3"),
        ({"max_per_class": 9}, "max_per_class was None and is 9"),
        ({"learning_rate": [0.01, 0.1]}, r"learning_rate was \[0.01\] and is \[0.01, 0.1\]"),
        ({"dataset": colours(seed=1)}, "of other data"),
    ):
        call = {"model": tiny(), "dataset": colours(), "output_dir": tmp_path / "out", **QUICK} | change
        with pytest.raises(ValueError, match=rf"`output_dir` must be empty or hold this run, .*\({difference}\)"):
            hf_zoosel.finetune(**call)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="got other files in"):
        hf_zoosel.finetune(tiny(), colours(), output_dir=tmp_path / "mine", **QUICK)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dataset": colours(8, ["red"])}, ValueError, "at least 2 classes"),
        ({"test": colours(8, ["red", "green", "blue", "grey"])}, ValueError, "only classes of the target, got 'grey'"),
        ({"validation": "dev"}, ValueError, "`validation` must be a data set beside a target of one split"),
        ({"test": "tset"}, ValueError, "`test` must be a data set beside a target of one split, got 'tset'"),
        ({"source_data": colours()}, ValueError, "`source` must be given beside `source_data`"),
        ({"source_weight": "auto"}, ValueError, "`source` must be given beside `source_weight`"),
        ({"source": "no/where", "source_split": "dev"}, ValueError, "`source` "),
        ({"source": colours(), "source_label_column": "kind"}, ValueError, "`source_label_column` must name a column"),
        (
            {"source": chosen_before(), "source_data": colours(9)},
            ValueError,
            "`source_data` must be what the",
        ),
        ({"source": chosen_before()}, ValueError, "`source_data` must be given beside a selection that was read"),
        ({"source": chosen_before(colours), "source_split": "x"}, ValueError, "`source_split` must be None beside a"),
        ({"recipe": {"refit": True}}, TypeError, r"`recipe` must be a Recipe, got dict. Pass `Recipe\("),
        ({"model": 7}, TypeError, "`model` must hold names"),
        (
            {"model": Ranking("toy", 0, 2, ("lfc",), ())},
            TypeError,
            "`model` must be one checkpoint, got a Ranking of 0. Pass its `best`",
        ),
        ({"num_workers": -1}, ValueError, "`num_workers` must be a whole number of at least 0"),
        ({"validation": None, "learning_rate": [0.1, 0.2]}, ValueError, "`validation` must be given"),
        ({"validation": None, "recipe": Recipe(patience=1)}, ValueError, "`validation` must be given"),
        ({"method": "joint"}, ValueError, "`source` must be given for method='joint'"),
        ({"method": "plain", "source": colours()}, ValueError, "`method` must be 'joint' or another"),
        ({"source": colours().remove_columns("label"), "method": "joint"}, ValueError, "`source` must have labels"),
        ({"regularizers": {"l3": 1.0}}, ValueError, "l3"),
        ({"epochs": 0}, ValueError, "`epochs` must be a whole number of at least 1, got 0"),
        ({"model": tiny(num_classes=0), "method": "co-tuning"}, CandidateError, "has no source head"),
        ({"source": colours(), "recipe": Recipe(source_head="kept")}, ValueError, "`source_head` must be 'new'"),
        ({"model": "no/such-model"}, CandidateError, "no/such-model"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(change, error, message, tmp_path):
    call = {"model": tiny(), "dataset": colours(), "output_dir": tmp_path / "out", **QUICK} | change
    with pytest.raises(error, match=message):
        hf_zoosel.finetune(**call)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_network_that_keeps_what_it_computed_while_ranked_can_be_trained_afterwards(tmp_path):
    """BEiT's relative positions are cached for all instances, on the first forward pass of any."""
    config = transformers.BeitConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        use_relative_position_bias=True, num_labels=5, out_indices=[1],
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BeitForImageClassification(config), transformers.ViTImageProcessorPil(size=32)
    ranking = hf_zoosel.rank_models(colours(), {"beit": model}, cache=False, progress=False)
    assert not ranking.failures
    options = {key: value for key, value in QUICK.items() if key != "image_size"} | {"epochs": 1}
    assert hf_zoosel.finetune(model, colours(), output_dir=tmp_path / "out", **options).history


def test_a_classifier_that_was_exchanged_by_hand_has_no_names(tmp_path):
    folder = transformers_resnet(tmp_path / "checkpoint")
    model = transformers.ResNetForImageClassification.from_pretrained(folder)
    model.classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 7))
    other = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32,
            patch_size=8, num_labels=5,
        )
    )  # fmt: skip
    other.classifier = torch.nn.Linear(16, 7)
    processor = transformers.ViTImageProcessorPil(size=32)
    options = {key: value for key, value in QUICK.items() if key != "image_size"} | {"epochs": 1}
    for name, module in (("vit", other), ("resnet", model)):
        result = hf_zoosel.finetune(
            (module, processor), colours(), method="co-tuning", output_dir=tmp_path / name, **options
        )
        assert any("p(source class | target class)" in note for note in result.notes)


def test_the_record_and_the_card_tell_how_it_was_made_and_no_folder(tmp_path):
    data = DatasetDict(train=colours(24), other=colours(12, seed=1), test=colours(18, seed=2))
    base = transformers_resnet(tmp_path / "secret" / "checkpoint")
    ranking = hf_zoosel.rank_models(data, [base], cache=False, progress=False)
    options = {key: value for key, value in QUICK.items() if key != "image_size"} | {"epochs": 1}
    first = hf_zoosel.finetune(
        ranking.best, data, split="train", validation=None, max_per_class=5, output_dir=tmp_path / "one", **options
    )
    assert (first.test_split, first.test_dataset) == ("test", None)
    assert dict(first.arguments) == {"split": "train", "validation": None, "max_per_class": 5}
    assert (first.chosen_by["place"], set(first.chosen_by["scores"])) == (1, {"lfc"})
    second = hf_zoosel.finetune(base, data, test=colours(12, seed=3), output_dir=tmp_path / "two", **options)
    assert (second.test_split, second.test_dataset is None, dict(second.chosen_by)) == (None, False, {})
    for result in (first, second):
        assert FinetuneResult.load(result.folder) == result
        for path in result.folder.rglob("*"):
            if path.suffix in (".md", ".json", ".yaml", ".csv") and path.name != "run.json":
                assert "secret" not in path.read_text(), path
    assert 'validation=None, split="train", max_per_class=5)' in (first.folder / "README.md").read_text()


def test_the_code_of_a_card_trains_the_same_again(tmp_path, monkeypatch):
    """Code that stands in a card is code that somebody runs."""
    for name, rows in {"train": colours(24), "test": colours(12, seed=1)}.items():
        (tmp_path / "birds").mkdir(exist_ok=True)
        rows.to_parquet(tmp_path / "birds" / f"{name}.parquet")
    (tmp_path / "images").mkdir()
    colours(30, ["warm", "cold", "dark"], seed=2).to_parquet(tmp_path / "images" / "train.parquet")
    transformers_resnet(tmp_path / "checkpoint")
    monkeypatch.chdir(tmp_path)
    options = {key: value for key, value in QUICK.items() if key != "image_size"} | {"epochs": 1}
    source = hf_zoosel.select_source("birds", "images", "./checkpoint", num_samples=8, cache=tmp_path, progress=False)
    result = hf_zoosel.finetune("./checkpoint", "birds", source=source, max_per_class=6, output_dir="out", **options)
    card = (result.folder / "README.md").read_text()
    assert "chosen one by one by `uot`" in card
    (code,) = re.findall(r"```python\n(import hf_zoosel\n.*?)```", card, re.DOTALL)
    (tmp_path / "selection.json").write_text((result.folder / "selection.json").read_text())
    monkeypatch.setenv("HF_ZOOSEL_CACHE", str(tmp_path / "cache"))
    found = {}
    exec(code.replace('"checkpoint"', '"./checkpoint"'), found)
    again = weights(found["result"])
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights(result).items())
    assert found["result"].metrics == result.metrics
