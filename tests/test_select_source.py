import dataclasses
import warnings

import numpy as np
import pytest
import timm
import torch
from datasets import ClassLabel, Dataset, Features, Image, concatenate_datasets
from torch import nn

from hf_zoosel import SourceSelection, contact_sheet, rank_models, select_source
from hf_zoosel.features import Runtime, Team
from hf_zoosel.features.statistics import source_statistics
from hf_zoosel.tasks.rows import open_rows
from hf_zoosel.transport import cosine_cost
from hf_zoosel.zoo import CandidateError, SourceStats, resolve
from tests.transport.test_unbalanced import by_pot

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0), "violet": (1, 0, 1)}


def coloured(names, n=4, seed=0, labelled=True):
    """Noisy pictures, each class of one colour."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 50, (n * len(names), 24, 24, 3))
    tint = np.repeat([COLOURS[name] for name in names], n, axis=0)[:, None, None]
    columns = {"image": list((noise + 200 * tint).astype(np.uint8))}
    features = {"image": Image()}
    if labelled:
        columns["label"] = np.repeat(np.arange(len(names)), n).tolist()
        features["label"] = ClassLabel(names=list(names))
    return Dataset.from_dict(columns, features=Features(features))


class MeanColour(nn.Module):
    """A network whose features are the mean colour."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, pixels):
        return self.head(pixels.mean(dim=(2, 3)))


def to_tensor(image):
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) / 255


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MeanColour(), to_tensor


def select(target, source, model, tmp_path, **options):
    return select_source(target, source, model, cache=tmp_path, progress=False, **options)


def names(selection):
    return [one.name for one in selection.classes]


@pytest.mark.parametrize("method", ["uot", "semi_relaxed", "capacity", "mean_distance", "nearest"])
def test_the_classes_that_look_like_the_target_are_chosen(model, tmp_path, method):
    selection = select(
        coloured(["red", "blue"], seed=1), coloured(COLOURS), model, tmp_path, num_classes=2, method=method
    )
    assert set(names(selection)) == {"red", "blue"}
    assert selection.unit == "class"
    assert len(selection.mass) == len(COLOURS)
    assert [one.nearest for one in selection.coverage] == ["red", "blue"]


def test_the_chosen_rows_are_a_data_set_of_their_own(model, tmp_path):
    source = coloured(COLOURS)
    selection = select(coloured(["green"], seed=1), source, model, tmp_path, num_classes=1)
    chosen = selection.dataset()
    assert chosen["label"][:] == [1] * 4
    assert chosen.features == source.features
    stream = select(coloured(["green"], seed=1), source.to_iterable_dataset(), model, tmp_path, num_classes=1)
    assert [row["label"] for row in stream.dataset()] == [1] * 4
    assert stream.mass == pytest.approx(selection.mass, rel=1e-6)


def test_without_labels_clusters_take_the_place_of_classes(model, tmp_path):
    source = coloured(COLOURS, labelled=False)
    selection = select(
        coloured(["red"], n=6, seed=1, labelled=False),
        source,
        model,
        tmp_path,
        num_classes=1,
        num_clusters=5,
        num_target_clusters=1,
    )
    assert selection.unit == "cluster"
    assert selection.rows == (0, 1, 2, 3)
    assert len(selection.dataset()) == 4
    assert select(coloured(["red"], seed=1), source, model, tmp_path, num_classes=1, num_clusters=5).rows == (
        0,
        1,
        2,
        3,
    )


def test_a_data_set_without_labels_or_clusters_says_what_to_pass(model, tmp_path):
    unlabelled = coloured(COLOURS, labelled=False)
    with pytest.raises(ValueError, match=r"`source` must have labels, got none .*`num_clusters=`"):
        select(coloured(["red"]), unlabelled, model, tmp_path)
    with pytest.raises(ValueError, match=r"`target` must have labels, got none .*`num_target_clusters=`"):
        select(unlabelled, coloured(COLOURS), model, tmp_path, num_classes=2)


def test_statistics_stand_in_for_the_data_and_those_of_another_checkpoint_are_refused(model, tmp_path):
    source, target = coloured(COLOURS), coloured(["red", "blue"], seed=1)
    runtime, alone = Runtime(torch.device("cpu"), torch.float32), Team(0, 1, torch.device("cpu"))
    candidate = resolve(model, "colours")
    stats = source_statistics(candidate, open_rows(source), runtime=runtime, team=alone, folder=None, progress=False)
    file = stats.save(tmp_path / "source_stats.safetensors")
    expected = select(target, source, model, tmp_path, num_classes=2)
    for given in (stats, file, str(file)):
        selection = select(target, given, model, tmp_path, num_classes=2)
        assert names(selection) == names(expected)
        assert selection.mass == expected.mass
        with pytest.raises(ValueError, match="made from statistics"):
            selection.dataset()
    torch.manual_seed(1)
    with pytest.raises(ValueError, match=r"another|checkpoint|weights"):
        select(target, file, (MeanColour(), to_tensor), tmp_path, num_classes=2)


def test_a_second_call_with_another_method_runs_no_forward_pass(tmp_path):
    seen = []

    class Counting(MeanColour):
        def __deepcopy__(self, memo):
            copy = Counting()
            copy.load_state_dict(self.state_dict())
            return copy

        def forward(self, pixels):
            seen.append(len(pixels))
            return super().forward(pixels)

    candidate = resolve((Counting(), to_tensor), "counting")
    source, target = coloured(COLOURS), coloured(["red"], seed=1)
    select(target, source, candidate, tmp_path, num_classes=1)
    assert sum(seen) == len(source) + len(target)
    select(target, source, candidate, tmp_path, num_classes=3, method="capacity")
    assert sum(seen) == len(source) + len(target)


def test_the_record_says_what_was_read_and_comes_back_from_disk(model, tmp_path):
    selection = select(coloured(["red"], seed=1), coloured(COLOURS), model, tmp_path, num_classes=2, seed=3)
    assert selection.revisions["model"].startswith("sha256:")
    assert selection.seed == 3
    again = SourceSelection.load(selection.save(tmp_path / "selection.json"))
    assert again == selection
    with pytest.raises(ValueError, match="read from a file"):
        again.dataset()


def test_source_and_target_that_are_the_same_data_set_are_noted(model, tmp_path):
    data = coloured(COLOURS)
    selection = select(data, data, model, tmp_path, num_classes=2)
    assert any("same data set" in note for note in selection.notes)


def test_a_model_that_cannot_be_used_says_why(tmp_path):
    with pytest.raises(CandidateError, match="there is no folder"):
        select(coloured(["red"]), coloured(COLOURS), "./nowhere", tmp_path, num_classes=1)


def test_a_real_network_works_too(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("test_resnet")
    selection = select(coloured(["red"], seed=1), coloured(COLOURS), network, tmp_path, num_classes=1)
    assert names(selection) == ["red"]


def test_single_images_are_chosen_as_a_dense_plan_would(model, tmp_path):
    source, target = coloured(COLOURS, n=8, labelled=False), coloured(["red", "blue"], seed=1)
    selection = select(target, source, model, tmp_path, num_samples=12)
    features, classes = (mean_colours(data) for data in (source, target))
    means = torch.stack([classes[:4].mean(dim=0), classes[4:].mean(dim=0)])
    plan = by_pot(
        cosine_cost(features, means) / 0.1,
        torch.ones(40),
        torch.ones(2),
        reg=1.0,
        reg_source=1.0,
        reg_target=100.0,
    )
    mass = plan.sum(axis=1)
    rows = np.sort(np.argsort(-mass)[:12])
    assert selection.unit == "sample"
    assert selection.rows == tuple(rows)
    assert selection.weights == pytest.approx(mass[rows], rel=1e-4)
    assert [one.name for one in selection.coverage] == ["red", "blue"]
    chosen = selection.dataset()
    assert [image.getpixel((0, 0)) for image in chosen["image"]] == [
        image.getpixel((0, 0)) for image in source.select(rows)["image"]
    ]
    assert SourceSelection.load(selection.save(tmp_path / "selection.json")) == selection


def mean_colours(data):
    return torch.stack([to_tensor(image) for image in data["image"]]).mean(dim=(2, 3))


@pytest.mark.parametrize("method", ["uot", "semi_relaxed", "nearest", "mean_distance", "random"])
def test_single_images_of_a_stream_are_those_of_its_data_set(model, tmp_path, method):
    source, target = coloured(COLOURS), coloured(["red"], seed=1)
    table = select(target, source, model, tmp_path, num_samples=4, method=method)
    stream = select(target, source.to_iterable_dataset(), model, tmp_path, num_samples=4, method=method)
    assert stream.rows == table.rows
    assert [row["label"] for row in stream.dataset()] == table.dataset()["label"][:]
    if method != "random":
        assert set(table.dataset()["label"][:]) == {0}


def test_single_images_for_clusters_of_a_target(model, tmp_path):
    source, target = coloured(COLOURS, labelled=False), coloured(["red", "blue"], seed=1, labelled=False)
    selection = select(target, source, model, tmp_path, num_samples=8, num_target_clusters=2)
    assert selection.rows == (*range(4), *range(8, 12))
    assert {one.name for one in selection.coverage} == {"cluster 0", "cluster 1"}


def test_what_cannot_be_chosen_image_by_image_is_refused_before_one_is_read(model, tmp_path):
    source, target = coloured(COLOURS), coloured(["red"], seed=1)
    stats = SourceStats(torch.eye(3), torch.ones(3, dtype=torch.int64))
    for data, given, text in (
        (source, {"num_samples": 0}, "`num_samples` must be a whole number of at least 1"),
        (source, {"num_samples": 5, "num_clusters": 2}, "`num_clusters` must be None beside `num_samples`"),
        (source, {"num_samples": 5, "method": "capacity"}, "for single samples, got 'capacity'"),
        (stats, {"num_samples": 5}, "got statistics, which hold no images"),
        (source, {"method": "uott"}, "Did you mean 'uot'"),
        (source, {"options": {"scal": 1}}, "Did you mean 'scale'"),
        (source, {}, "`num_classes` must be from 1 to the 5 classes of the source, got 100. Pass one"),
        (
            source,
            {"num_classes": 4, "num_clusters": 3},
            "`num_classes` must be from 1 to the 3 clusters of the source",
        ),
        (stats, {"num_classes": 4}, "`num_classes` must be from 1 to the 3 classes of the source"),
        (source, {"num_classes": 1, "source_split": "dev"}, "`source_split` must be None for a data set that is one"),
        (source, {"num_classes": 1, "source_label_column": "kind"}, "`source_label_column` must name a column"),
        (source, {"num_classes": 1, "label_column": "kind"}, "`label_column` must name a column"),
        (str(tmp_path / "away"), {"num_classes": 1}, "`source` must be an existing path"),
    ):
        with pytest.raises(ValueError, match=text):
            select(target, data, model, tmp_path, **given)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="from 1 to the 20 images of the source, got 21"):
        select(target, source, model, tmp_path, num_samples=21)


def test_features_that_cannot_be_found_again_are_removed(model, tmp_path):
    candidate = resolve(model, "colours")
    unknown = dataclasses.replace(candidate, preprocess=dataclasses.replace(candidate.preprocess, cacheable=False))
    target = coloured(["red"], seed=1)
    for chosen in ({"num_samples": 4}, {"num_classes": 1, "num_clusters": 5}):
        selection = select(target, coloured(COLOURS), unknown, tmp_path, **chosen)
        assert selection.rows == (0, 1, 2, 3)
        assert not list(tmp_path.rglob("*.safetensors"))


def renamed(data):
    """The data under column names that nobody would guess, beside decoys."""
    decoys = Dataset.from_dict({"image": ["decoy"] * len(data), "label": ["decoy"] * len(data)})
    renamed = data.rename_columns({"image": "photograph", "label": "what"})
    return concatenate_datasets([renamed, decoys], axis=1)


def test_a_sheet_is_drawn_of_named_columns_streams_and_a_single_class(model, tmp_path):
    source, target = coloured(["red"]), coloured(["blue"], seed=1)
    columns = {"image_column": "photograph", "label_column": "what"}
    columns |= {f"source_{name}": column for name, column in columns.items()}
    for data, given in (
        ((target, source), {}),
        ((target.to_iterable_dataset(), source.to_iterable_dataset()), {}),
        ((renamed(target), renamed(source)), columns),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            selection = select(*data, model, tmp_path, num_classes=1, **given)
        assert contact_sheet(selection, *data, **given).width > 100


def test_a_sheet_passes_over_images_that_cannot_be_read(model, tmp_path):
    source, target = coloured(COLOURS), coloured(["red"], seed=1)
    selection = select(target, source, model, tmp_path, num_classes=2)
    expected = contact_sheet(selection, target, source.select(range(1, 20)))
    raw = source.cast_column("image", Image(decode=False))
    spoiled = raw.map(
        lambda row, i: {"image": {"bytes": b"" if i == 0 else row["image"]["bytes"], "path": None}}, with_indices=True
    )
    assert contact_sheet(selection, target, spoiled.cast_column("image", Image())).tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="must hold an image of 'red', got none"):
        contact_sheet(selection, target, source.select(range(4, 20)))


def test_a_sheet_of_single_images_shows_those_that_weigh_most(model, tmp_path):
    source, target = coloured(COLOURS, labelled=False), coloured(["red"], seed=1)
    selection = select(target, source, model, tmp_path, num_samples=6)
    assert contact_sheet(selection, target, source, n=3).height > contact_sheet(selection, target, source, n=6).height
    stream = contact_sheet(selection, target, source.to_iterable_dataset(), n=3)
    assert stream.tobytes() == contact_sheet(selection, target, source, n=3).tobytes()
    with pytest.raises(ValueError, match="must have a row"):
        contact_sheet(selection, target, source.select([0]), n=3)


@pytest.mark.parametrize("stream", [False, True])
def test_rows_that_a_class_label_marks_as_unlabelled_are_not_those_of_the_last_class(stream, model, tmp_path):
    source = coloured(COLOURS, labelled=True)
    n = len(source)
    lost = [row for row, label in enumerate(source["label"]) if label == len(COLOURS) - 1][:2]
    source = source.map(lambda row, i: {"label": -1 if i in lost else row["label"]}, with_indices=True)
    selection = select(
        coloured(["red"], seed=1), source.to_iterable_dataset() if stream else source, model, tmp_path, method="all"
    )
    rows = list(selection.dataset())
    assert len(rows) == n - 2 == sum(one.count for one in selection.classes)
    assert -1 not in [row["label"] for row in rows]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_classes": None}, "`num_classes` must be how many source classes 'uot' shall choose, got None"),
        ({"num_classes": 2.5}, "`num_classes` must be a whole number of at least 1, got 2.5"),
        ({"num_classes": 99}, f"`num_classes` must be from 1 to the {len(COLOURS)} classes of the source, got 99"),
        ({"num_classes": 99, "num_clusters": 3}, "`num_classes` must be from 1 to the 3 clusters of the"),
        ({"num_samples": 9999}, r"`num_samples` must be from 1 to the \d+ images of the source, got 9,999"),
    ],
)
def test_a_wrong_number_is_named_as_the_caller_knows_it(given, message, model, tmp_path):
    with pytest.raises(ValueError, match=message):
        select(coloured(["red"], seed=1), coloured(COLOURS), model, tmp_path, **given)


def test_the_whole_source_needs_no_number_and_numpy_numbers_are_taken(model, tmp_path):
    target, source = coloured(["red"], seed=1), coloured(COLOURS)
    assert len(select(target, source, model, tmp_path, method="all").classes) == len(COLOURS)
    assert len(select(target, source, model, tmp_path, num_classes=np.int64(2)).classes) == 2


def test_a_ranked_checkpoint_that_was_written_over_is_not_taken_for_it(tmp_path):
    folder = tmp_path / "model"
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=3), folder, safe_serialization=True)
    target, source = coloured(["red", "blue"], seed=1), coloured(COLOURS)
    best = rank_models(target, [str(folder)], cache=False, progress=False).best
    assert len(select(target, source, best, tmp_path, num_classes=2).classes) == 2
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=3), folder, safe_serialization=True)
    with pytest.raises(ValueError, match=r"`model` must be what was ranked, got other weights of .*model"):
        select(target, source, best, tmp_path, num_classes=2)


def test_a_folder_that_cannot_be_written_is_not_the_models_fault(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"features cannot be kept in .*file.* Make room there, or name another folder"):
        select(coloured(["red"]), coloured(COLOURS), model, tmp_path / "file" / "cache", num_samples=3)


def test_notes_say_whether_they_are_of_the_source_or_of_the_target(model, tmp_path):
    source, target = coloured(COLOURS), coloured(["red", "blue"], seed=1)
    labels = [-1, *target["label"][1:]]
    spoiled = target.remove_columns("label").add_column("label", labels).cast_column("label", target.features["label"])
    notes = " ".join(select(spoiled, source, model, tmp_path, num_classes=1).notes)
    assert "1 of 8 target rows have no label and were left out." in notes
    assert "source rows" not in notes


def test_a_sheet_says_which_data_set_cannot_be_opened(model, tmp_path):
    source, target = coloured(COLOURS), coloured(["red"], seed=1)
    selection = select(target, source, model, tmp_path, num_classes=1)
    for data, given, message in (
        ((target, str(tmp_path / "away")), {}, "`source` must be an existing path"),
        ((str(tmp_path / "away"), source), {}, "`target` must be an existing path"),
        ((target, source), {"source_image_column": "what"}, "`source_image_column` must name"),
    ):
        with pytest.raises(ValueError, match=message):
            contact_sheet(selection, *data, **given)
