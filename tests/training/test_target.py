"""What is trained on, validated on and measured on stays apart."""

import pytest
from datasets import DatasetDict, NamedSplit, concatenate_datasets
from PIL import Image

from hf_zoosel.training.materials import Columns
from hf_zoosel.training.target import open_target_rows
from tests.test_finetune import colours


def opened(data, *, split=None, validation=0.2, test="test"):
    columns = Columns(split=split)
    return open_target_rows(data, columns, validation=validation, test=test, max_per_class=None, seed=0)


@pytest.fixture
def data():
    return DatasetDict(train=colours(24), validation=colours(12, seed=1), test=colours(18, seed=2))


def test_a_test_split_that_is_trained_on_measures_nothing(data):
    train, held_out, tested = opened(data, split="test")
    assert (len(train) + len(held_out), tested) == (18, None)
    assert "the model is not measured: it was trained on the test split" in train.notes
    assert opened(data, split="test", test="validation")[2].split == "validation"
    train, _, tested = opened(data)
    assert (tested.split, train.notes) == ("test", ())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"validation": "train"}, "`validation` must be another split than the one that is trained on, got 'train'"),
        ({"validation": "test"}, "`validation` must be another split than `test`, which is looked at once"),
        ({"validation": "test", "split": "test"}, "than the one that is trained on, got 'test' for both"),
    ],
)
def test_a_split_is_not_used_twice(given, message, data):
    with pytest.raises(ValueError, match=message):
        opened(data, **given)


def test_without_a_test_a_split_of_that_name_can_be_validated_on(data):
    _, held_out, tested = opened(data, validation="test", test=None)
    assert (held_out.split, tested) == ("test", None)


def test_an_expression_that_takes_rows_of_the_test_split_measures_nothing(data, monkeypatch):
    def load_dataset(name, config, *, split, revision):
        parts = [data[part.partition("[")[0]] for part in split.split("+")]
        return concatenate_datasets(parts, split=NamedSplit(split))

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    for split in ("train+test", "test[:50%]"):
        assert opened("me/colours", split=split)[2] is None
    assert opened("me/colours", split="train[:50%]")[2].split == "test"
    with pytest.raises(ValueError, match="than the one that is trained on"):
        opened("me/colours", split="train[:50%]", validation="train")


def test_a_damaged_test_split_is_no_missing_one(data, tmp_path):
    folder = tmp_path / "split"  # a word that its errors hold then
    folder.mkdir()
    data["train"].to_parquet(folder / "train.parquet")
    assert opened(folder)[2] is None
    (folder / "test.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(ValueError, match="`dataset` must hold parquet files"):
        opened(folder)


@pytest.mark.parametrize("saved", [False, True], ids=["DatasetDict", "folder"])
def test_of_several_splits_given_as_test_the_one_of_that_name_is_measured(saved, tmp_path):
    def given(**splits):
        data = DatasetDict({name: colours(n, seed=n) for name, n in splits.items()})
        if not saved:
            return data
        folder = tmp_path / "-".join(splits)
        for name, rows in data.items():
            rows.to_parquet(folder / f"{name}.parquet")
        return folder

    train = colours(24)
    assert len(opened(train, test=given(train=30, test=6, validation=9))[2]) == 6
    assert len(opened(train, test=given(test=6))[2]) == 6
    assert len(opened(train, test=given(train=30))[2]) == 30
    assert len(opened(train, validation=given(train=30, test=6, val=9))[1]) == 9
    assert opened(train, test=given(test=6))[2].notes == ()  # as it should be: no word of labels that reach a score
    with pytest.raises(ValueError, match="`test` must be a data set of one split, or have one named 'test', got tr"):
        opened(train, test=given(train=30, val=9))


def test_a_test_split_without_labels_or_rows_stops_nothing_that_did_not_ask_for_it(data, tmp_path):
    for test, note in (
        (data["test"].remove_columns("label"), "the test split has no labels and was not used"),
        (data["test"].select([]), "there is no test split with rows"),
    ):
        train, _, tested = opened(DatasetDict(train=data["train"], test=test))
        assert tested is None
        assert note in train.notes[0]
    for place in (
        "train/red/1",
        "train/red/2",
        "train/blue/3",
        "train/blue/4",
        "test/5",
        "test/6",
    ):  # as Kaggle has it
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    train, _, tested = opened(tmp_path)
    assert (tested, train.notes) == (None, ("the test split has no labels and was not used",))


def test_what_is_wrong_with_a_split_names_it_and_the_way_out(data):
    other = DatasetDict(train=data["train"], test=data["test"].rename_column("image", "thing"))
    columns = Columns(image="image")
    with pytest.raises(ValueError, match=r"got 'image'.* This is said of the split 'test'; `test=None` leaves it out"):
        open_target_rows(other, columns, validation=None, test="test", max_per_class=None, seed=0)
    with pytest.raises(ValueError, match=r"`test` must be one of train, validation, test, got 'tset'. Did you mean"):
        opened(data, test="tset")
    without = DatasetDict(train=data["train"], validation=data["validation"].remove_columns("label"))
    with pytest.raises(ValueError, match=r"label column, got none.* said of the split 'validation'; `valid"):
        opened(without, validation="validation")
    with pytest.raises(ValueError, match="label column, got none"):  # given, not only found
        opened(data, test=data["test"].remove_columns("label"))
    with pytest.raises(ValueError, match="`validation` must be a data set beside a target of one split, got 'val'"):
        opened(data["train"], validation="val")
