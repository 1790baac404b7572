import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from hf_zoosel.tasks import load_task


def with_columns(**columns):
    return Dataset.from_dict(columns)


def test_the_one_image_and_the_one_class_label_are_found_whatever_their_names(toy, pets):
    data = toy([0, 1], pets).rename_columns({"image": "scan", "label": "finding"}).add_column("label_text", ["a", "b"])
    task = load_task(data)
    assert (task.image_column, task.label_column) == ("scan", "finding")


@pytest.mark.parametrize("name", ["image", "IMG", "pixel_values", "jpg"])
def test_encoded_bytes_are_found_by_a_usual_name(png, name):
    task = load_task(with_columns(**{name: [png(0), png(1)], "id": [5, 6], "target": [0, 1]}))
    assert (task.image_column, task.label_column) == (name, "target")


def test_paths_are_found_by_their_endings(png, tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    data = with_columns(file=[str(tmp_path / "a.png")] * 2, path=["unrelated", "words"], species=["x", "y"])
    task = load_task(data)
    assert task.image_column == "file"
    assert task.images.encoded([1])[0].decode().size == (4, 3)


def test_bytes_in_a_struct_without_a_declared_image_are_read(png, pixels):
    data = with_columns(image=[{"bytes": png(9), "path": None}, {"bytes": png(1), "path": "x"}], label=[0, 1])
    assert pixels(load_task(data))[0, 0].tolist() == [9, 0, 7]


def test_named_columns_win(png):
    data = with_columns(image=[png(0)] * 2, other=[png(5)] * 2, label=[0, 1], colour=["red", "blue"])
    task = load_task(data, image_column="other", label_column="colour")
    assert (
        task.images.encoded([0])[0].digest
        == load_task(data.select_columns(["other", "label"]), image_column="other").images.encoded([0])[0].digest
    )
    assert task.class_names == ("blue", "red")


@pytest.mark.parametrize("argument", ["image_column", "label_column"])
def test_an_unknown_column_is_refused_with_the_choices_and_a_guess(toy, argument):
    close = {"image_column": "imagge", "label_column": "labell"}[argument]
    with pytest.raises(
        ValueError, match=rf"`{argument}` must name a column.*Did you mean.*image: image, label: int64"
    ):
        load_task(toy([0, 1]), **{argument: close})


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"label": [0, 1]}, r"an image column, got none\. Pass `image_column=`; the columns are: label: int64"),
        ({"image": [b"1", b"2"]}, r"a label column, got none\. Pass `label_column=`; the columns are: image: binary"),
        ({"image": [b"1", b"2"], "img": [b"1", b"2"], "label": [0, 1]}, "got any of image, img"),
        ({"image": [b"1", b"2"], "label": [0, 1], "class": ["a", "b"]}, "got any of label, class"),
        ({"image": ["no", "paths"], "label": [0, 1]}, "an image column, got none"),
        ({"image": [b"1", b"2"], "label": [0.1, 0.7]}, "regression target.*cast"),
        ({"image": [b"1", b"2"], "labels": [[0, 1], [1]]}, "multi-label target"),
    ],
)
def test_ambiguous_or_unfit_columns_are_refused_with_their_types(columns, match):
    with pytest.raises(ValueError, match=match):
        load_task(with_columns(**columns))


def test_several_class_labels_are_refused(toy, pets):
    data = toy([0, 1], pets).add_column("coarse", [0, 0]).cast_column("coarse", ClassLabel(names=["pet", "wild"]))
    with pytest.raises(ValueError, match=r"got any of label, coarse.*label: ClassLabel of 3"):
        load_task(data)
    assert load_task(data, label_column="label").class_names == ("cat", "dog")


def test_several_images_are_refused(toy):
    data = toy([0, 1])
    data = data.add_column("mask", data.with_format("arrow")["image"][:].to_pylist()).cast_column("mask", Image())
    with pytest.raises(ValueError, match="got any of image, mask"):
        load_task(data)


@pytest.mark.parametrize(("feature", "value"), [(Value("float32"), 0.5), (List(Value("int64")), [1, 2])])
def test_a_named_regression_or_multi_label_target_is_refused(png, feature, value):
    features = Features({"image": Value("binary"), "score": feature, "label": Value("int64")})
    data = Dataset.from_dict({"image": [png()], "score": [value], "label": [0]}, features=features)
    with pytest.raises(ValueError, match=r"`label_column` must hold one class per image.*got 'score'"):
        load_task(data, label_column="score")


def test_a_named_image_column_of_numbers_is_refused(toy):
    with pytest.raises(ValueError, match=r"`image_column` must hold images, bytes, paths or arrays, got 'label'"):
        load_task(toy([0, 1]), image_column="label")


@pytest.mark.parametrize(
    "feature",
    [datasets.Array3D((2, 3, 3), "uint8"), List(List(List(Value("uint8"), length=3), length=3), length=2), None],
)
def test_arrays_are_read_as_images(feature, pixels):
    arrays = np.arange(36, dtype=np.uint8).reshape(2, 2, 3, 3)
    data = Dataset.from_dict({"image": list(arrays), "label": [0, 1]})
    task = load_task(data if feature is None else data.cast_column("image", feature))
    np.testing.assert_array_equal(pixels(task, 1), arrays[1])
