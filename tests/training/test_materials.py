"""What is trained on, validated on and measured on stays apart."""

import pytest
from datasets import DatasetDict, NamedSplit, concatenate_datasets

from hf_zoosel.training.materials import Columns, open_target_rows
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
