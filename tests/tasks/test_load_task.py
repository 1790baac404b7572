import pickle
import subprocess
import sys

import datasets
import numpy as np
import pytest
from datasets import DatasetDict, IterableDatasetDict, load_dataset

from hf_zoosel.tasks import Task, load_task


def test_the_record_describes_the_sample(toy, pets):
    task = load_task(toy([0, 1, 1, 2] * 30, pets), max_per_class=25)
    assert isinstance(task, Task)
    assert (len(task), task.n_classes, task.n_available, task.class_names) == (75, 3, 120, ("cat", "dog", "eel"))
    assert np.bincount(task.labels).tolist() == [25, 25, 25]
    assert (np.diff(task.rows) > 0).all()
    assert (task.image_column, task.label_column, task.split, task.name) == ("image", "label", "", "dataset")
    assert len(task.images) == 75


def test_images_come_in_the_order_asked_for(toy):
    task = load_task(toy([0, 1] * 5))
    reds = [np.asarray(image.decode())[0, 0, 0] for image in task.images.encoded([4, 0, 4, 9])]
    assert reds == [4, 0, 4, 9]
    assert task.images.encoded([]) == []


@pytest.mark.parametrize("iterable", [False, True])
def test_of_a_dict_only_the_train_split_is_taken(toy, iterable):
    train, test = toy([0, 1, 0]), toy([5, 6])
    splits = (
        IterableDatasetDict(test=test.to_iterable_dataset(), train=train.to_iterable_dataset())
        if iterable
        else DatasetDict(test=test, train=train)
    )
    task = load_task(splits)
    assert (task.split, task.class_names) == ("train", ("0", "1"))
    assert load_task(splits, split="test").class_names == ("5", "6")


@pytest.mark.parametrize("names", [["validation", "test"], ["test"], ["a", "b"], ["val"]])
def test_without_a_train_split_one_must_be_named(toy, names):
    splits = DatasetDict({name: toy([0, 1]) for name in names})
    with pytest.raises(ValueError, match=f"split named 'train', got {', '.join(names)}. Pass `split=`"):
        load_task(splits)
    assert load_task(splits, split=names[0]).split == names[0]


def test_the_only_split_is_taken_whatever_its_name(toy):
    assert load_task(DatasetDict(full=toy([0, 1]))).split == "full"


def test_an_unknown_split_is_refused_with_the_choices(toy):
    with pytest.raises(ValueError, match=r"`split` must be one of train, test, got 'trian'. Did you mean 'train'"):
        load_task(DatasetDict(train=toy([0, 1]), test=toy([0, 1])), split="trian")
    with pytest.raises(ValueError, match=r"`split` must be None"):
        load_task(toy([0, 1]), split="train")


def test_a_test_split_given_as_it_is_leaves_a_note(toy):
    data = toy([0, 1])
    held_out = datasets.Dataset(data.data, split=datasets.Split.TEST)
    assert load_task(held_out).notes[0] == "the data set given is the split 'test': its labels reach the scores"
    assert load_task(held_out, split="test").notes[0].startswith("2 classes")


def test_transforms_and_formats_of_the_data_set_are_not_applied(toy):
    data = toy([0, 1, 1])
    expected = load_task(data)
    for dressed in (data.with_transform(lambda batch: 1 / 0), data.with_format("torch"), data.with_format("numpy")):
        task = load_task(dressed)
        assert task.labels.tolist() == [0, 1, 1]
        assert task.images.encoded([0, 1]) == expected.images.encoded([0, 1])
    assert load_task(data.with_format("numpy", columns=["label"])).images.encoded([2]) == expected.images.encoded([2])


def test_the_same_call_gives_the_same_task(toy):
    data = toy([0, 1] * 50)
    one, other, third = (load_task(data, max_per_class=5, seed=seed).rows.tolist() for seed in (7, 7, 8))
    assert one == other != third


@pytest.mark.parametrize(
    ("argument", "value", "error", "match"),
    [
        ("max_per_class", 0, ValueError, r"`max_per_class` must be at least 1, got 0. Pass None to take all."),
        ("max_per_class", True, TypeError, r"must be an integer, got True"),
        ("max_per_class", 2.5, TypeError, r"must be an integer, got 2.5"),
        ("seed", -1, ValueError, r"`seed` must be at least 0, got -1"),
        ("seed", None, TypeError, r"`seed` must be an integer, got None"),
    ],
)
def test_numbers_are_checked(toy, argument, value, error, match):
    with pytest.raises(error, match=match):
        load_task(toy([0, 1]), **{argument: value})


def test_numpy_integers_are_numbers(toy):
    assert len(load_task(toy([0, 1, 1]), max_per_class=np.int64(1))) == 2


def test_an_empty_data_set_is_refused(toy):
    with pytest.raises(ValueError, match="must have rows, got an empty split"):
        load_task(toy([0, 1]).select([]))
    with pytest.raises(ValueError, match="empty dict"):
        load_task(DatasetDict())


@pytest.mark.parametrize("thing", [None, [1, 2], {"image": []}])
def test_what_is_no_data_set_is_refused(thing):
    with pytest.raises(TypeError, match=r"`dataset` must be a datasets.Dataset"):
        load_task(thing)


def test_a_name_can_be_given(toy):
    assert load_task(toy([0, 1]), name="pets").name == "pets"


def test_a_task_on_disk_survives_pickling(toy, tmp_path):
    toy([0, 1, 1]).to_parquet(str(tmp_path / "train.parquet"))
    task = load_task(load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), split="train"))
    again = pickle.loads(pickle.dumps(task))
    assert again.images.encoded([0, 2]) == task.images.encoded([0, 2])
    assert again.name == "parquet"


def test_importing_the_room_loads_no_heavy_library():
    code = "import sys, hf_zoosel.tasks; print({'torch', 'datasets', 'PIL', 'pyarrow', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_test_split_on_disk_leaves_the_same_note(toy, tmp_path):
    said = "the data set given is the split 'test': its labels reach the scores"
    data = toy([0, 1])
    held_out = datasets.Dataset(data.data, info=data.info, split=datasets.Split.TEST)
    held_out.save_to_disk(tmp_path / "saved")
    held_out.to_parquet(tmp_path / "test.parquet")
    for path in (tmp_path / "saved", tmp_path / "test.parquet"):
        assert said in load_task(str(path)).notes
        assert said not in load_task(str(path), split="test").notes
