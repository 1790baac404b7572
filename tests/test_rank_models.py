import logging

import numpy as np
import pytest
import timm
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from torch import nn

import hf_zoosel
from hf_zoosel import METRICS, Metric, Ranking, rank_models
from hf_zoosel.metrics import VARIANTS
from hf_zoosel.zoo import resolve


def pictures(n=24, n_classes=3, seed=0):
    """Noise of a colour that depends on the class."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    images = random.integers(0, 60, (n, 40, 40, 3), dtype=np.uint8)
    images[np.arange(n), :, :, labels] += 120
    names = ["red", "green", "blue"][:n_classes]
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"image": list(images), "label": labels.tolist()}, features=features)


def tiny(seed=0, architecture="test_resnet", **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(architecture, **options)


def rank(dataset, models, *args, **options):
    return rank_models(dataset, models, *args, progress=False, **options)


def to_tensor(image):
    return torch.from_numpy(np.asarray(image.resize((32, 32)), dtype=np.float32)).permute(2, 0, 1) / 255


class Colours(nn.Module):
    """Mean colour, then a linear head: features that tell the classes apart perfectly."""

    def __init__(self, n_out=4):
        super().__init__()
        self.head = nn.Linear(3, n_out)

    def forward(self, pixels):
        return self.head(pixels.mean(dim=(2, 3)))


class Blind(Colours):
    """Sees a constant picture, whatever it is shown."""

    def forward(self, pixels):
        return self.head(torch.rand(len(pixels), 3, generator=torch.Generator().manual_seed(0)))


ALWAYS = {"features", "source_probs", "source_logits", "labels", "n_parameters", "identity", "scores"}


def test_all_metrics_rank_all_kinds_of_candidates_in_one_call(tmp_path):
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vit = ViTForImageClassification(ViTConfig(**small, image_size=32, patch_size=16, num_labels=5))
    vit.save_pretrained(tmp_path / "vit")
    resnet = ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8, layer_type="basic", num_labels=7)
    ResNetForImageClassification(resnet).save_pretrained(tmp_path / "resnet")
    timm.models.save_for_hf(tiny(), tmp_path / "timm", safe_serialization=True)
    models = {
        "vit": str(tmp_path / "vit"),
        "resnet": tmp_path / "resnet",
        "timm": str(tmp_path / "timm"),
        "module": (Colours(), to_tensor),
        "timm module": tiny(1),
    }
    ranking = rank(pictures(), models, "all")
    assert ranking.failures == ()
    assert {c.name for c in ranking} == set(models)
    for result in ranking:
        assert set(result.scores) | set(result.skipped) == set(METRICS)
        assert {name for name, one in METRICS.items() if set(one.needs) <= ALWAYS} <= set(result.scores)
        for name, score in result.scores.items():
            assert METRICS[name].is_static or score.low <= score.value <= score.high
        assert result.revision.startswith("sha256:")
    assert sum(c.scores["lfc"].p_best for c in ranking) == pytest.approx(1)
    assert ranking["module"].n_features == 3
    assert ranking.best is ranking[0]


class Convolving(nn.Module):
    """A small network with maps, gradients and a head, that counts the images it sees."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def __deepcopy__(self, memo):
        copy = Convolving(self.seen)
        copy.load_state_dict(self.state_dict())
        return copy

    def forward(self, pixels):
        self.seen.append(len(pixels))
        return self.head(torch.relu(self.conv(pixels)).mean(dim=(2, 3)))


def test_all_metrics_come_from_one_forward_pass_an_image_of_target_and_source(tmp_path):
    seen = [[], []]
    models = [resolve((Convolving(images), to_tensor), name) for name, images in zip("ab", seen, strict=True)]
    target, source = pictures(30), pictures(18, n_classes=2, seed=1)
    options = {"source": source, "reference": (Colours(), to_tensor), "cache": tmp_path}
    names = [*METRICS, *VARIANTS]
    ranking = rank(target, models, names, **options)
    assert [sum(images) for images in seen] == [30 + 18] * 2
    for result in ranking:
        assert set(result.scores) == set(names) - {"source_accuracy"}
    again = rank(target, models, names, **options)
    assert [sum(images) for images in seen] == [30 + 18] * 2
    assert all(one.scores == other.scores for one, other in zip(ranking, again, strict=True))


def test_a_candidate_that_sees_the_classes_beats_a_blind_one_by_every_metric():
    models = {"blind": (Blind(), to_tensor), "seeing": (Colours(), to_tensor)}
    ranking = rank(pictures(60), models, "all")
    for metric in (name for name, one in METRICS.items() if set(one.needs) == {"features", "labels"}):
        assert ranking.by(metric).best.name == "seeing"


def test_five_candidates_three_of_them_bad_give_two_scores_and_three_reasons(tmp_path):
    timm.models.save_for_hf(tiny(), tmp_path / "good", safe_serialization=True)
    timm.models.save_for_hf(tiny(), tmp_path / "truncated", safe_serialization=True)
    weights = tmp_path / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    timm.models.save_for_hf(tiny(), tmp_path / "pickled", safe_serialization=False)
    nan = Colours()
    nn.init.constant_(nan.head.weight, float("nan"))
    models = {
        "good": tmp_path / "good",
        "truncated": tmp_path / "truncated",
        "pickled": tmp_path / "pickled",
        "nan": (nan, to_tensor),
        "also good": tiny(2),
    }
    ranking = rank(pictures(), models, ["lfc", "leep"])
    assert {c.name for c in ranking if c.rank} == {"good", "also good"}
    reasons = {c.name: c.error for c in ranking.failures}
    assert set(reasons) == {"truncated", "pickled", "nan"}
    assert "truncated" in reasons["truncated"]
    assert "pickled weights" in reasons["pickled"]
    assert "not finite" in reasons["nan"]
    assert Ranking.from_dict(ranking.to_dict()) == ranking


def test_a_metric_a_candidate_cannot_have_is_a_reason_and_the_order_stays_honest():
    models = {"headless": tiny(0, num_classes=0), "headed": tiny(1)}
    ranking = rank(pictures(), models, ["leep", "lfc"])
    assert [c.name for c in ranking] == ["headed", "headless"]
    assert ranking["headless"].rank is None
    assert "no source head" in ranking["headless"].skipped["leep"]
    assert "lfc" in ranking["headless"].scores


def test_a_head_with_one_class_is_noted(caplog):
    with caplog.at_level(logging.WARNING):
        ranking = rank(pictures(), {"one": (Colours(n_out=1), to_tensor)}, ["lfc", "leep"])
    assert "single class" in caplog.text
    assert any("single class" in note for note in ranking.notes)
    assert "leep" in ranking["one"].skipped


def test_a_persons_own_metric_is_scored_with_an_interval():
    def spread(features, labels):
        return features.double().std().item()

    ranking = rank(pictures(), {"a": tiny(0), "b": tiny(1)}, spread)
    assert ranking.metrics == ("spread",)
    assert all(c.scores["spread"].low < c.scores["spread"].value < c.scores["spread"].high for c in ranking)

    def head_mean(probs, labels):
        return probs.max(dim=1).values.mean().item()

    confident = Metric("confident", head_mean, needs=("source_probs", "labels"), cost="O(n z)", reference="this test")
    assert rank(pictures(), {"a": tiny(0)}, confident).best.scores["confident"].value > 0


def test_all_metrics_may_stand_beside_others():
    asked = ["knn", "all", Metric("mine", lambda features, labels: features.double().mean().item())]
    ranking = rank(pictures(12), {"a": tiny(0)}, asked, n_bootstrap=0)
    assert ranking.metrics == ("knn", *(name for name in METRICS if name != "knn"), "mine")


def test_a_metric_that_fails_takes_no_other_score_with_it():
    def broken(features, labels):
        raise ZeroDivisionError("oh no")

    result = rank(pictures(), {"a": tiny(0)}, ["lfc", broken]).best
    assert "lfc" in result.scores
    assert result.skipped["broken"] == "oh no"


def test_the_train_split_alone_is_looked_at():
    wrong = pictures(seed=1).cast_column("image", Image(decode=False))
    wrong = wrong.map(lambda row: {"image": {"bytes": b"", "path": None}})
    splits = DatasetDict(train=pictures(), test=wrong.cast_column("image", Image()))
    assert rank(splits, {"a": tiny(0)}).skipped_images == ()


def test_a_stream_gives_the_same_ranking_as_the_data_set():
    models = {"a": tiny(0), "b": tiny(1)}
    whole = rank(pictures(60), models, max_per_class=5)
    stream = rank(pictures(60).to_iterable_dataset(), models, max_per_class=5)
    assert [c.scores for c in whole] == [c.scores for c in stream]


def test_the_same_call_gives_the_same_ranking_and_another_seed_another_sample():
    models = {"a": tiny(0), "b": tiny(1)}
    first = rank(pictures(60), models, max_per_class=5)
    again = rank(pictures(60), models, max_per_class=5, cache=False)
    other = rank(pictures(60), models, max_per_class=5, seed=1)
    assert [c.scores for c in first] == [c.scores for c in again]
    assert [c.scores for c in first] != [c.scores for c in other]


def test_no_bootstrap_gives_scores_without_intervals():
    score = rank(pictures(), {"a": tiny(0)}, n_bootstrap=0).best.scores["lfc"]
    assert score.low is None
    assert score.p_best is None


def test_unreadable_images_are_skipped_counted_and_listed(caplog):
    raw = pictures().cast_column("image", Image(decode=False))

    def spoil(row, index):
        return {"image": {"bytes": b"" if index in (3, 4) else row["image"]["bytes"], "path": None}}

    spoiled = raw.map(spoil, with_indices=True).cast_column("image", Image())
    with caplog.at_level(logging.WARNING):
        ranking = rank(spoiled, {"a": tiny(0)})
    assert [image.row for image in ranking.skipped_images] == [3, 4]
    assert ranking.n_samples == 22
    assert "2 of 24 images could not be read" in caplog.text


def test_a_data_set_without_a_readable_image_is_an_error():
    raw = pictures().cast_column("image", Image(decode=False))
    spoiled = raw.map(lambda row: {"image": {"bytes": b"x", "path": None}}).cast_column("image", Image())
    with pytest.raises(ValueError, match="none could be read"):
        rank(spoiled, {"a": tiny(0)})


def spoiled(dataset, rows):
    raw = dataset.cast_column("image", Image(decode=False))

    def spoil(row, index):
        return {"image": {"bytes": b"" if index in rows else row["image"]["bytes"], "path": None}}

    return raw.map(spoil, with_indices=True).cast_column("image", Image())


def test_a_class_that_loses_all_its_images_is_named_and_the_others_are_numbered_anew():
    seen = []

    def numbers(features, labels):
        seen.extend(labels.unique().tolist())
        return 0.0

    ranking = rank(spoiled(pictures(), range(0, 24, 3)), {"a": tiny(0)}, ["lfc", numbers], n_bootstrap=0)
    assert ranking.n_classes == 2
    assert seen == [0, 1]
    assert any("red" in note for note in ranking.notes)


def test_one_class_left_after_unreadable_images_is_an_error():
    with pytest.raises(ValueError, match="only those of class 'green'"):
        rank(spoiled(pictures(), [row for row in range(24) if row % 3 != 1]), {"a": tiny(0)})


def test_a_persons_metric_may_change_what_it_is_given_and_harms_no_other():
    def vandal(features, labels):
        features.mul_(0)
        labels.zero_()
        return torch.tensor(1.0)

    models = {"a": (Colours(), to_tensor)}
    plain = rank(pictures(), models, ["lfc"], cache=False).best.scores["lfc"]
    for metrics in (["lfc", vandal], [vandal, "lfc"]):
        best = rank(pictures(), models, metrics, cache=False).best
        assert best.scores["lfc"].value == plain.value
        assert best.scores["vandal"].value == 1


def test_a_persons_metric_may_ask_for_gradients_with_and_without_a_cache():
    def slope(features, labels):
        with torch.enable_grad():
            loss = features.requires_grad_().square().sum()
        return torch.autograd.grad(loss, features)[0].norm()

    for transform in (to_tensor, lambda image, forever=(i for i in ()): to_tensor(image)):
        assert rank(pictures(), {"a": (Colours(), transform)}, slope, n_bootstrap=0).best.scores["slope"].value > 0


def test_an_influence_that_is_not_finite_costs_the_interval_and_not_the_score():
    def infinite(features, labels):
        return torch.tensor(2.0), torch.full((len(labels),), float("nan"))

    needs = ("features", "labels")
    odd = Metric("odd", lambda f, y: 2.0, needs, cost="O(1)", reference="this test", influence=infinite)
    score = rank(pictures(), {"a": (Colours(), to_tensor)}, ["lfc", odd]).best.scores["odd"]
    assert (score.value, score.low) == (2.0, None)


def test_numpy_numbers_are_numbers():
    options = {"seed": np.int64(3), "max_per_class": np.int64(4), "level": np.float32(0.5), "memory": np.int64(2**30)}
    ranking = rank(pictures(), {"a": tiny(0)}, **options, n_bootstrap=np.int64(10))
    assert Ranking.from_dict(ranking.to_dict()) == ranking
    assert ranking.n_samples == 12


def test_when_every_candidate_fails_the_reasons_are_there():
    ranking = rank(pictures(), {"a": "/no/such/folder", "b": "embedded:nothing"})
    assert len(ranking.failures) == 2
    with pytest.raises(ValueError, match="no folder"):
        _ = ranking.best


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "lfcc"}, "lfc"),
        ({"metric": []}, "at least one metric"),
        ({"metric": ["lfc", "lfc"]}, "none twice"),
        ({"metric": ["all", "all"]}, "none twice"),
        ({"metric": [lambda x, y: 0.0, lambda x, y: 1.0]}, r"none twice, .*Metric\('name', function\)"),
        ({"image_column": "img"}, "image"),
        ({"label_column": "lable"}, "label"),
        ({"max_per_class": 0}, "max_per_class"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_workers": 1.5}, "num_workers"),
        ({"n_bootstrap": -1}, "n_bootstrap"),
        ({"n_bootstrap": 1.5}, "n_bootstrap"),
        ({"level": 95}, "level"),
        ({"device": "meta"}, "device"),
        ({"dtype": "int8"}, "dtype"),
        ({"device": "quantum"}, "device"),
        ({"models": []}, "at least one model"),
        ({"models": ["./a", "./a"]}, "distinct names"),
    ],
)
def test_bad_arguments_are_named_with_the_remedy(options, message):
    models = options.pop("models", {"a": tiny(0)})
    with pytest.raises(ValueError, match=message):
        rank(pictures(), models, **options)


def test_no_label_column_lists_the_columns():
    with pytest.raises(ValueError, match="image"):
        rank(pictures().remove_columns("label"), {"a": tiny(0)})


def test_a_regression_target_is_refused():
    numbers = pictures().remove_columns("label").add_column("label", np.linspace(0, 1, 24))
    with pytest.raises(ValueError, match=r"float|regression"):
        rank(numbers.cast_column("label", Value("float32")), {"a": tiny(0)})


def test_one_class_only_is_refused():
    with pytest.raises(ValueError, match="class"):
        rank(pictures().filter(lambda row: row["label"] == 0), {"a": tiny(0)})


def test_an_unknown_public_name_lists_those_there_are():
    with pytest.raises(AttributeError, match="rank_models"):
        _ = hf_zoosel.rank_model
    assert "rank_models" in dir(hf_zoosel)


def test_with_one_image_a_class_there_is_a_score_but_no_interval():
    with_one = rank(pictures(), {"a": tiny(0)}, "lfc", max_per_class=1)
    assert with_one.best.scores["lfc"].low is None
    assert with_one.best.scores["lfc"].p_best is None


def test_the_result_says_what_a_name_stood_for(tmp_path):
    timm.models.save_for_hf(tiny(), tmp_path / "model", safe_serialization=True)
    ranking = rank(pictures(), {"saved": tmp_path / "model", "in memory": tiny(1), "gone": "embedded:nothing"})
    assert ranking["saved"].source == str(tmp_path / "model")
    assert ranking["in memory"].source is None
    assert ranking["gone"].source == "embedded:nothing"


class Flattening(nn.Module):
    """A home-made network as tutorials write them: it counts on maps that are contiguous."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.shift = nn.Parameter(torch.zeros(1, 1, 1, 1, 3))  # channels-last cannot be had of five dimensions
        self.head = nn.Linear(8 * 16, 3)

    def forward(self, pixels):
        maps = torch.relu(self.second(torch.relu(self.first(pixels + self.shift.mean()))))
        maps = nn.functional.adaptive_avg_pool2d(maps, 4)
        return self.head(maps.view(maps.size(0), -1))


def test_code_that_flattens_by_view_is_ranked_and_trained(tmp_path):
    torch.manual_seed(0)
    model = (Flattening(), to_tensor)
    ranking = rank(pictures(), {"mine": model}, ["lfc", "leep", "lgc"], cache=False)
    assert not ranking.failures
    assert set(ranking.best.scores) == {"lfc", "leep", "lgc"}
    with pytest.warns(UserWarning, match="is no configuration"):
        result = hf_zoosel.finetune(
            model, pictures(), epochs=1, batch_size=8, num_workers=0, output_dir=tmp_path / "out", progress=False
        )
    assert result.history


def test_the_source_has_columns_and_a_split_of_its_own():
    source = pictures(seed=1).rename_columns({"label": "species"})
    source = source.add_column("sex", [0, 1] * (len(source) // 2)).cast_column("sex", ClassLabel(names=["f", "m"]))
    splits = DatasetDict(train=source.select(range(6)), sample=source)
    with pytest.raises(ValueError, match=r"`source` must .* Pass `source_label_column="):
        rank(pictures(), {"a": tiny()}, "otce", source=splits)
    named = {"source_label_column": "species", "source_split": "sample"}
    ranking = rank(pictures(), {"a": tiny()}, "otce", source=splits, **named)
    expected = rank(pictures(), {"a": tiny()}, "otce", source=source.remove_columns("sex"))
    assert ranking.best.scores == expected.best.scores


def test_no_cache_named_is_the_default_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ZOOSEL_CACHE", str(tmp_path / "kept"))
    rank(pictures(), {"a": tiny()}, cache=None)
    assert any((tmp_path / "kept").rglob("*.safetensors"))
