"""The loop against one written by hand in bare PyTorch, and what may go wrong within it."""

import copy
import json
import math

import numpy as np
import pytest
import timm
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy

import hf_zoosel
from hf_zoosel.api.arguments import one_candidate
from hf_zoosel.training import DivergedError, Recipe
from hf_zoosel.training.augment import Augmentation, make_views
from hf_zoosel.training.plan import SourcePlan, TargetPlan
from hf_zoosel.training.randomness import Purpose, borrowed_generators, generator, image_seeds
from hf_zoosel.zoo import CandidateError
from hf_zoosel.zoo.image_size import with_image_size

QUICK = {"epochs": 1, "batch_size": 8, "image_size": 32, "device": "cpu", "num_workers": 0, "progress": False}


def colours(n=30, names=("red", "green", "blue"), seed=0):
    labels = np.arange(n) % len(names)
    images = np.random.default_rng(seed).integers(0, 60, (n, 32, 32, 3), dtype=np.uint8)
    for colour in range(3):
        images[labels % 3 == colour, :, :, colour] += 90
    columns = {"image": list(images), "label": labels.tolist()}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "label": ClassLabel(names=list(names))}))


def broken(data, rows):
    """The same with rows that are no images."""
    cells = data.cast_column("image", Image(decode=False))["image"][:]
    cells = [{"bytes": b"no image", "path": None} if row in rows else cell for row, cell in enumerate(cells)]
    return Dataset.from_dict({"image": cells, "label": data["label"]}, features=data.features)


def tiny(name="test_resnet", **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(name, **arguments)


def as_tensor(image):
    return torch.from_numpy(np.asarray(image.resize((32, 32)), dtype=np.float32)).permute(2, 0, 1) / 255


def finetune(folder, model=None, data=None, **options):
    data = colours() if data is None else data
    return hf_zoosel.finetune(model or tiny(), data, output_dir=folder, **QUICK | options)


def weights(result):
    return load_file(result.folder / "model.safetensors")


def new_head(n_features, n_classes, draw):
    head = nn.Linear(n_features, n_classes)
    with torch.no_grad():
        head.weight.copy_(torch.empty(n_classes, n_features).normal_(0, 0.01, generator=draw))
        head.bias.zero_()
    return head


def bare_loop(module, target, source, recipe):
    """Fine-tune as the recipe says, step by step: SGD on cross-entropy, two heads on the features of one pass."""
    model, n = copy.deepcopy(module).train().to(memory_format=torch.channels_last), len(target)
    preprocess = with_image_size(one_candidate(module), 32).preprocess
    view = make_views(preprocess, Augmentation()).train
    draw = torch.Generator().manual_seed(int(generator(recipe.seed, Purpose.HEADS).integers(2**62)))
    model.fc = new_head(model.num_features, 3, draw)
    heads = [*model.fc.parameters()]
    if source is not None:
        source_head = new_head(model.num_features, 3, draw)
        heads += source_head.parameters()
    body = [p for name, p in model.named_parameters() if not name.startswith("fc.")]
    plan, source_plan = TargetPlan(n, recipe.batch_size, recipe.seed), SourcePlan(24, recipe.batch_size, recipe.seed)

    def read(data, rows, purpose, step):
        made, labels = [], []
        with borrowed_generators() as seed_all:
            for row, seed in zip(rows.tolist(), image_seeds(recipe.seed, purpose, step, len(rows)), strict=True):
                seed_all(seed)
                made.append(view(data[row]["image"]))
                labels.append(data[row]["label"])
        return preprocess.batch(torch.from_numpy(np.stack(made))), torch.tensor(labels)

    groups = [{"params": body}, {"params": heads, "factor": recipe.head_rate}]
    optimizer = torch.optim.SGD(
        groups, lr=1.0, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay
    )
    total = (n // recipe.batch_size) * recipe.epochs
    for step in range(total):
        factor = 0.1 ** (int(step >= 0.6 * total) + int(step >= 0.8 * total))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * group.get("factor", 1.0) * factor
        pixels, labels = read(target, plan.rows(step), Purpose.TARGET_PIXELS, step)
        if source is not None:
            more, source_labels = read(source, source_plan.rows(step), Purpose.SOURCE_PIXELS, step)
            pixels = torch.cat([pixels, more])
        features = model.forward_head(model.forward_features(pixels), pre_logits=True)
        loss = cross_entropy(model.fc(features)[: len(labels)], labels)  # every head sees all rows, as in the model
        if source is not None:
            loss = loss + recipe.source_weight * cross_entropy(source_head(features)[len(labels) :], source_labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "joint"])
def test_the_weights_are_those_of_a_loop_written_by_hand(mixed, tmp_path):
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=0.02, weight_decay=1e-3, source_weight=0.7, seed=4)
    source = colours(24, ("warm", "cold", "dark"), seed=2) if mixed else None
    options = {key: QUICK[key] for key in ("image_size", "device", "num_workers", "progress")}
    result = hf_zoosel.finetune(
        tiny(), colours(), source=source, recipe=recipe, validation=None, output_dir=tmp_path / "out", **options
    )
    ours, theirs = weights(result), bare_loop(tiny(), colours(), source, recipe)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    assert not torch.allclose(ours["conv1.0.weight"], tiny().state_dict()["conv1.0.weight"], atol=1e-4)


def loud(image):
    return 1000 * as_tensor(image)


def test_a_last_step_that_ruins_the_weights_is_found_though_every_loss_was_finite(tmp_path):
    options = {"learning_rate": 1e36, "batch_size": 64, "validation": None, "image_size": None}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    with pytest.raises(DivergedError, match="got weights that are not at step 1 of 1"):
        finetune(tmp_path / "out", (module, loud), **options)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_weights_that_are_finite_and_of_no_use_are_found_on_the_rows_held_out(tmp_path):
    with pytest.raises(DivergedError, match=r"got (nan|inf) on 6 rows held out"):
        finetune(tmp_path / "out", learning_rate=1e30, batch_size=64)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_co_tuning_races_with_and_without_the_source(tmp_path):
    source = colours(24, ("warm", "cold", "dark"), seed=2)
    result = finetune(tmp_path / "out", tiny(num_classes=6), source=source, source_weight="auto", method="co-tuning")
    assert [row["source_weight"] for row in result.trials] == [0.0, 0.1, 0.3, 1.0]


def test_the_race_is_run_at_the_first_rate_that_does_not_diverge(tmp_path):
    source = colours(24, ("warm", "cold", "dark"), seed=2)
    options = {"source": source, "source_weight": "auto", "learning_rate": [1e12, 0.01]}
    result = finetune(tmp_path / "out", epochs=2, **options)
    assert result.recipe["learning_rate"] == 0.01
    assert [row["note"] for row in result.trials][4:] == ["diverged", ""]


class Cramped(nn.Module):
    """Has memory for eight images at a time, from the second epoch on."""

    passes = 0

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3, 4), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, pixels):
        if self.training:
            Cramped.passes += 1
            if Cramped.passes > 2 and len(pixels) > 8:
                raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return self.head(self.norm(self.conv(pixels)).relu().mean(dim=(2, 3)))


class CrampedInEvaluation(Cramped):
    """Has memory for eight images at a time, when it is evaluated."""

    def forward(self, pixels):
        if not self.training and len(pixels) > 8:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return self.head(self.norm(self.conv(pixels)).relu().mean(dim=(2, 3)))


@pytest.mark.filterwarnings("ignore:the preprocessing of")
def test_an_evaluation_that_runs_out_of_memory_takes_fewer_images_at_once_and_trains_no_other_way(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = CrampedInEvaluation()
    options = {"image_size": None, "batch_size": 24, "epochs": 2, "validation": colours(40, seed=1)}
    result = finetune(tmp_path / "out", (module, as_tensor), **options)
    assert not any("memory ran out" in note for note in result.notes)
    assert result.metrics["n_validation"] == 40


@pytest.mark.filterwarnings("ignore:the preprocessing of")
def test_a_run_that_was_killed_goes_on_in_the_smaller_passes_memory_had_forced_on_it(tmp_path, monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Cramped()
    options = {"validation": None, "image_size": None, "batch_size": 24, "epochs": 4, "checkpointing_steps": 1}
    Cramped.passes = 1
    whole = finetune(tmp_path / "whole", (module, as_tensor), **options)
    assert "memory ran out: a step was made in 4 passes" in whole.notes
    from hf_zoosel.training import checkpoints

    written = checkpoints.write

    def write_and_die(folder, identity, progress, model, optimizer):
        written(folder, identity, progress, model, optimizer)
        if progress["step"] == 3:
            raise KeyboardInterrupt

    Cramped.passes = 1
    monkeypatch.setattr(checkpoints, "write", write_and_die)
    with pytest.raises(KeyboardInterrupt):
        finetune(tmp_path / "killed", (module, as_tensor), **options)
    monkeypatch.undo()
    Cramped.passes = 1  # a process of its own would have memory for the whole batch again
    killed = finetune(tmp_path / "killed", (module, as_tensor), **options)
    assert all(torch.equal(tensor, weights(killed)[name]) for name, tensor in weights(whole).items())


def test_a_run_that_was_killed_within_an_epoch_goes_on_there(tmp_path, monkeypatch):
    from hf_zoosel.training import checkpoints

    options = {"data": broken(colours(), {4, 5}), "validation": None, "epochs": 2, "checkpointing_steps": 2}
    whole = finetune(tmp_path / "whole", **options)
    written = []

    def write_and_die(folder, identity, progress, model, optimizer):
        path = write(folder, identity, progress, model, optimizer)
        written.append(progress["step"])
        if written == [1, 2, 3, 4, 5]:
            raise KeyboardInterrupt
        return path

    write = checkpoints.write
    monkeypatch.setattr(checkpoints, "write", write_and_die)
    with pytest.raises(KeyboardInterrupt):
        finetune(tmp_path / "killed", **options | {"checkpointing_steps": 1})
    killed = finetune(tmp_path / "killed", **options)
    assert written == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(tensor, weights(killed)[name]) for name, tensor in weights(whole).items())
    assert [row["loss"] for row in killed.history] == [row["loss"] for row in whole.history]
    assert killed.metrics == whole.metrics


@pytest.mark.parametrize(("asked", "expected"), [(1000, [3, 12]), (4, [3, 4, 8, 12])])
def test_short_epochs_do_not_write_a_checkpoint_each(asked, expected, tmp_path, monkeypatch):
    from hf_zoosel.training import checkpoints

    whole = finetune(tmp_path / "whole", validation=None, epochs=4)
    written = []

    def write_slowly(folder, identity, progress, model, optimizer):
        written.append(progress["step"])
        clock[0] += 60.0
        return write(folder, identity, progress, model, optimizer)

    clock, write = [0.0], checkpoints.write
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoints, "write", write_slowly)
    same = finetune(tmp_path / "same", validation=None, epochs=4, checkpointing_steps=asked)
    assert written == expected
    assert all(torch.equal(tensor, weights(same)[name]) for name, tensor in weights(whole).items())


def test_a_source_head_that_is_not_there_is_said_before_training_and_the_folder_stays_free(tmp_path):
    with pytest.raises(ValueError, match="`keep_source_head` must be False for method='plain'"):
        finetune(tmp_path / "out", keep_source_head=True)
    finetune(tmp_path / "out")
    with pytest.raises(ValueError, match="keep_source_head was False and is True"):
        finetune(tmp_path / "out", keep_source_head=True)


def test_a_size_the_network_cannot_take_is_said_and_the_folder_stays_free(tmp_path):
    with pytest.raises(CandidateError, match="cannot run on images of 100 x 100 pixels"):
        finetune(tmp_path / "out", tiny("test_vit"), image_size=100)
    assert not (tmp_path / "out" / "run.json").exists()
    finetune(tmp_path / "out", tiny("test_vit", img_size=32))


def test_every_rate_is_checked_before_the_first_is_tried_and_numpy_numbers_are_numbers(tmp_path):
    with pytest.raises(ValueError, match=r"`learning_rate` must be above 0, got -1\.0"):
        finetune(tmp_path / "out", learning_rate=[0.1, -1.0])
    result = finetune(tmp_path / "out", learning_rate=np.array([0.01, 0.02]), seed=np.int64(3), batch_size=np.int32(8))
    assert [row["learning_rate"] for row in result.trials] == [0.01, 0.02]
    assert json.loads((result.folder / "all_results.json").read_text())["seed"] == 3


def test_a_classifier_without_bias_is_fitted_anew_without_one(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stem = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        module = nn.Sequential(*stem, nn.Linear(8, 4, bias=False))
    with pytest.warns(UserWarning, match="is no configuration"):
        result = finetune(tmp_path / "out", (module, as_tensor), image_size=None, recipe=Recipe(refit=True))
    assert result.metrics["validation_accuracy"] > 0.9
    assert "5.bias" not in weights(result)


def test_test_images_that_cannot_be_read_or_have_no_labels_cost_no_model(tmp_path):
    test = colours(6, seed=1)
    result = finetune(tmp_path / "broken", data=DatasetDict(train=colours(), test=broken(test, range(6))))
    assert "none of the 6 test images could be read: the model is not measured" in result.notes
    hidden = Dataset.from_dict({"image": test["image"][:], "label": [-1] * 6}, features=test.features)
    result = finetune(tmp_path / "hidden", data=DatasetDict(train=colours(), test=hidden))
    assert "the test split has no labels and was not used" in result.notes
    assert "test_accuracy" not in result.metrics


def test_training_does_not_mind_that_the_caller_had_switched_gradients_off(tmp_path):
    with torch.no_grad():
        result = finetune(tmp_path / "out")
    assert not torch.allclose(weights(result)["conv1.0.weight"], tiny().state_dict()["conv1.0.weight"])


def test_the_model_can_be_read_by_whoever_may_read_its_card(tmp_path):
    folder = finetune(tmp_path / "out").folder
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_what_a_killed_call_left_half_written_goes_with_the_next(tmp_path):
    out = tmp_path / "out"
    finetune(out)
    (out / "runs" / "x").mkdir(parents=True)  # killed as it cleaned up
    finetune(out)
    assert not (out / "runs").exists()
    (out / "all_results.json").unlink()
    (out / ".out-0a1b2c3d").mkdir()  # killed as it wrote the model
    finetune(out)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_full_disk_is_an_os_error_and_the_same_call_goes_on_when_there_is_room(tmp_path):
    import resource
    import signal

    def limited(limit, folder):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            return finetune(folder, recipe=Recipe(patience=3), epochs=2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    for limit in (100_000, 2_000_000):  # less than the weights, less than a checkpoint
        with pytest.raises(OSError, match="cannot be written"):
            limited(limit, tmp_path / "full")
    whole, full = finetune(tmp_path / "whole", recipe=Recipe(patience=3), epochs=2), limited(10**9, tmp_path / "full")
    assert all(torch.equal(tensor, weights(full)[name]) for name, tensor in weights(whole).items())
    assert all(math.isfinite(row["loss"]) for row in full.history)


def test_it_trains_where_it_is_told_to_whatever_accelerate_was_used_for_before(tmp_path, monkeypatch):
    from accelerate import PartialState

    monkeypatch.setattr(PartialState(cpu=True), "device", torch.device("meta"))
    assert finetune(tmp_path / "out").metrics["n_train"] > 0


def test_the_precision_of_the_launcher_is_part_of_the_run(tmp_path, monkeypatch):
    assert finetune(tmp_path / "out").recipe["mixed_precision"] == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match="mixed_precision was 'no' and is 'bf16'"):
        finetune(tmp_path / "out")
    assert finetune(tmp_path / "other").recipe["mixed_precision"] == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ValueError, match="`mixed_precision` must be 'no' or 'bf16' on a CPU"):
        finetune(tmp_path / "fp16")


def test_a_checkpoint_is_written_with_every_new_best(tmp_path, monkeypatch):
    from hf_zoosel.training import checkpoints

    monkeypatch.setattr(checkpoints.Pace, "is_due", False)
    steps, write = [], checkpoints.write
    monkeypatch.setattr(checkpoints, "write", lambda *given: steps.append(given[2]["step"]) or write(*given))
    result = finetune(tmp_path / "out", epochs=6, recipe=Recipe(patience=6, head_rate=3.0), learning_rate=0.02)
    accuracies = [row["validation_accuracy"] for row in result.history]
    best = [i for i, one in enumerate(accuracies) if one > max(accuracies[:i], default=-1.0)]
    n = steps[-1] // len(accuracies)
    assert steps == sorted({*(n * (i + 1) for i in best), n * len(accuracies)})
    assert len(best) > 1
