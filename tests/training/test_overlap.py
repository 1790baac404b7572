"""Images that a model is measured on are not trained on, wherever they come from."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, concatenate_datasets

import hf_zoosel
from hf_zoosel.training import overlap
from hf_zoosel.training.overlap import without_held_out
from hf_zoosel.training.source_stream import open_source
from hf_zoosel.training.streams import open_target
from tests.test_finetune import QUICK, colours, tiny


def rows_of(data):
    return open_target(data)


@pytest.mark.parametrize("most", [3, 20_000], ids=["found by some", "found by all"])
def test_what_is_held_out_is_left_out_of_a_source_that_holds_it_among_others(most, monkeypatch):
    monkeypatch.setattr(overlap, "_LOOKED_AT", most)
    held_out, other = colours(9, seed=1), colours(12, seed=2)
    source = open_source(concatenate_datasets([held_out.select([8]), other, held_out.select(range(4))]))
    left = without_held_out(source, [rows_of(held_out), None])
    assert left.rows.tolist() == list(range(1, 13))
    assert left.labels.tolist() == source.labels[1:13].tolist()
    assert left.notes[-1] == "5 source images are among those to validate or test on, and left out of training"
    assert without_held_out(source, [rows_of(colours(9, seed=3)), None]) is source


def test_images_that_are_missing_are_not_taken_for_the_same():
    def without_the_third(seed):
        data = colours(9, seed=seed)
        cells = [None if row == 2 else cell for row, cell in enumerate(data["image"])]
        return Dataset.from_dict({"image": cells, "label": data["label"]}, features=data.features)

    source = open_source(without_the_third(1))
    assert without_held_out(source, [rows_of(without_the_third(2))]) is source


def test_classes_are_drawn_as_often_as_their_masses_say_whatever_is_left_out():
    held_out = colours(9, seed=1).select([0, 3, 6])  # all of one class
    source = open_source(concatenate_datasets([held_out.select([0, 1]), colours(12, seed=2)]))
    source = replace(source, weights=np.linspace(1.0, 2.0, 14))
    left = without_held_out(source, [rows_of(concatenate_datasets([held_out, colours(3, seed=5)]))])
    assert np.bincount(left.labels, left.weights) == pytest.approx(np.bincount(source.labels, source.weights))
    only = replace(source, weights=np.eye(14)[0])
    with pytest.raises(ValueError, match="`source` must hold images of some mass that the model is not measured on"):
        without_held_out(only, [rows_of(concatenate_datasets([held_out, colours(3, seed=5)]))])


def test_a_source_of_nothing_else_is_refused():
    with pytest.raises(ValueError, match="`source` must hold images that the model is not measured on"):
        without_held_out(open_source(colours(9)), [rows_of(colours(9))])


def test_a_target_given_as_its_own_source_is_trained_on_without_what_is_held_out(tmp_path):
    data = DatasetDict(train=colours(30), test=colours(12, seed=1))
    whole = concatenate_datasets([data["train"], data["test"]])
    result = hf_zoosel.finetune(tiny(), data, source=whole, output_dir=tmp_path / "out", **QUICK)
    assert result.metrics["n_source"] == 24
    assert "18 source images are among those to validate or test on, and left out of training" in result.notes
