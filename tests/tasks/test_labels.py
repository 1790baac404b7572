import datasets
import numpy as np
import pytest

from hf_zoosel.tasks import load_task


@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([7, -3, 7, 100], ("-3", "7", "100"), [1, 0, 1, 2]),
        (["dog", "cat", "dog", "ant"], ("ant", "cat", "dog"), [2, 1, 2, 0]),
        ([True, False, True, True], ("False", "True"), [1, 0, 1, 1]),
    ],
)
def test_labels_of_any_type_are_numbered_in_their_order(toy, labels, names, expected, as_stream):
    data = toy(labels).to_iterable_dataset() if as_stream else toy(labels)
    task = load_task(data)
    assert task.class_names == names
    assert task.labels.tolist() == expected
    assert task.labels.dtype == np.int64


@pytest.mark.parametrize("as_stream", [False, True])
def test_class_labels_keep_their_names_and_order_and_only_those_present(toy, pets, as_stream):
    data = toy([2, 0, 2, 0], pets)
    task = load_task(data.to_iterable_dataset() if as_stream else data)
    assert task.class_names == ("cat", "eel")
    assert task.labels.tolist() == [1, 0, 1, 0]
    assert "1 class has no image: dog" in task.notes


@pytest.mark.parametrize("as_stream", [False, True])
def test_rows_without_a_label_are_left_out_and_counted(toy, pets, as_stream):
    data = toy([0, None, 1, -1, 1, 0], pets)
    task = load_task(data.to_iterable_dataset() if as_stream else data)
    assert task.rows.tolist() == [0, 2, 4, 5]
    assert task.n_available == 4
    assert "2 of 6 rows have no label and were left out" in task.notes


def test_minus_one_is_a_class_of_an_integer_column(toy):
    assert load_task(toy([-1, 1, -1, 1])).class_names == ("-1", "1")


def test_classes_with_one_image_are_named_in_a_note(toy):
    assert (
        "2 classes have a single image in the sample: ant, bee" in load_task(toy(["ant", "bee", "cat", "cat"])).notes
    )


def test_labels_cannot_be_changed(toy):
    with pytest.raises(ValueError, match="read-only"):
        load_task(toy([0, 1])).labels[0] = 5


def test_labels_follow_the_rows_of_select_filter_and_shuffle(toy):
    data = toy(list(range(20))).shuffle(seed=1).filter(lambda row: row["label"] % 2 == 0).select([3, 1, 4, 5])
    task = load_task(data)
    assert [int(task.class_names[label]) for label in task.labels] == data["label"][:]
    shown = [np.asarray(image.decode())[0, 0, 0] for image in task.images.encoded(range(4))]
    assert shown == data["label"][:]


def test_categorical_strings_are_read(png):
    import pyarrow as pa

    table = pa.table({"image": [png(0), png(1)], "label": pa.array(["b", "a"]).dictionary_encode()})
    assert load_task(datasets.Dataset(table)).class_names == ("a", "b")


@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize(
    ("labels", "match"), [([3, 3], r"2 classes, got only '3'"), ([None, None], "none in the 2 rows")]
)
def test_fewer_than_two_classes_are_refused(toy, labels, match, as_stream):
    data = toy(labels)
    with pytest.raises(ValueError, match=match):
        load_task(data.to_iterable_dataset() if as_stream else data)


@pytest.mark.parametrize(
    ("labels", "match"),
    [([1, "a"], r"must be int in every row, got 'a' \(str\)"), ([0, 0.5], r"got 0\.5 \(float\)"), ([True, 1], "bool")],
)
def test_a_stream_without_types_must_not_mix_them(png, labels, match):
    stream = datasets.IterableDataset.from_generator(lambda: ({"image": png(), "label": y} for y in labels))
    with pytest.raises(ValueError, match=match):
        load_task(stream)
