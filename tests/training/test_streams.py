import pickle
from dataclasses import replace

import datasets
import numpy as np
import pytest
from hypothesis import given, strategies as st

from hf_zoosel.selection import SourceSelection
from hf_zoosel.selection.record import SourceClass, TargetClass
from hf_zoosel.tasks.rows import open_rows
from hf_zoosel.tasks.views import classes_of, rows_of
from hf_zoosel.training.source_stream import open_source
from hf_zoosel.training.streams import LabelledRows, open_held_out, open_target, split_validation
from tests.training.pictures import picture, pictures


def seen(rows):
    return [np.asarray(one.decode()).tolist() for one in rows.images.encoded(range(len(rows)))]


def originals(*numbers):
    return [np.asarray(picture(number)).tolist() for number in numbers]


def rows_with(labels):
    names = tuple(map(str, range(max(labels) + 1)))
    return LabelledRows("toy", "train", None, np.array(labels), names, np.arange(len(labels)))


def test_a_target_is_all_of_its_rows_as_a_task_numbers_them():
    target = open_target(pictures([2, 0, 2, 0], names="abc"))
    assert target.class_names == ("a", "c")
    assert target.labels.tolist() == [1, 0, 1, 0]
    assert seen(target) == originals(0, 1, 2, 3)
    assert target.notes == ("1 class has no image: b",)


def test_a_stream_is_the_data_set_it_streams():
    data = pictures(list("abab"))
    streamed = open_target(data.to_iterable_dataset())
    assert seen(streamed) == seen(open_target(data))
    assert streamed.identity == open_target(data).identity


def test_a_target_may_be_capped():
    assert np.bincount(open_target(pictures(list("aaab")), max_per_class=2).labels).tolist() == [2, 1]


def test_a_target_of_one_class_is_refused():
    with pytest.raises(ValueError, match="at least 2 classes, got only 'a'"):
        open_target(pictures(["a", "a"]))


def test_rows_survive_pickle_and_are_taken_by_position():
    rows = pickle.loads(pickle.dumps(open_target(pictures(list("abcab")))))
    some = rows.take(np.array([3, 1]))
    assert (some.rows.tolist(), some.labels.tolist(), some.class_names) == ([3, 1], [0, 1], ("a", "b", "c"))
    assert seen(some) == seen(some.take(np.arange(2))) == originals(3, 1)


def test_the_identity_changes_with_labels_images_and_rows():
    data = pictures(list("abab"))
    others = [pictures(list("abba")), pictures(list("abab"), offset=9), data.select([0, 1, 2])]
    identities = {open_target(one).identity for one in (data, *others)}
    assert len(identities) == 4
    assert open_target(data).identity in identities


def test_a_split_held_out_is_numbered_as_the_target():
    test = open_held_out(pictures([1, 0], names="cb"), ("a", "b", "c"))
    assert (test.labels.tolist(), test.class_names) == ([1, 2], ("a", "b", "c"))


def test_a_split_held_out_may_have_one_class_and_rows_without_label():
    test = open_held_out(pictures([0, -1], names="cb"), ("b", "c"))
    assert (test.labels.tolist(), test.rows.tolist()) == ([1], [0])
    assert test.notes == ("1 of 2 rows have no label and were left out",)


def test_a_split_is_taken_by_name():
    both = datasets.DatasetDict({"train": pictures(list("ab")), "test": pictures(["b"], offset=5)})
    assert open_held_out(both, ("a", "b"), split="test").labels.tolist() == [1]


def test_a_label_outside_the_targets_classes_is_named():
    with pytest.raises(ValueError, match=r"only classes of the target, got 'zebra' in .* The target has 'a', 'b'"):
        open_held_out(pictures(["a", "zebra"]), ("a", "b"))


def test_class_names_that_come_twice_cannot_be_matched():
    with pytest.raises(ValueError, match="the target has 'crane' twice"):
        open_held_out(pictures(["crane", "a"]), ("crane", "a", "crane"))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_validation_split_is_stratified(labels, fraction, seed):
    rows = rows_with(labels)
    counts = np.bincount(labels, minlength=6)
    if counts.max() < 2:
        with pytest.raises(ValueError, match="two images or more"):
            split_validation(rows, fraction, seed)
        return
    train, validation = split_validation(rows, fraction, seed)
    assert sorted([*train.rows, *validation.rows]) == list(range(len(labels)))
    held_out = np.bincount(validation.labels, minlength=6)
    for n, out in zip(counts, held_out, strict=True):
        assert out == (0 if n < 2 else min(max(1, round(fraction * n)), n - 1))
    again = split_validation(rows, fraction, seed)
    assert np.array_equal(again[1].rows, validation.rows)


def test_seeds_hold_out_different_rows():
    rows = rows_with([0, 1] * 30)
    drawn = {tuple(split_validation(rows, 0.3, seed)[1].rows) for seed in range(5)}
    assert len(drawn) == 5


def test_classes_of_a_single_image_are_noted():
    _, validation = split_validation(rows_with([0, 0, 1]), 0.5)
    assert validation.notes == ("no image of '1' in the validation part: each has a single image",)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match=r"`fraction` must be in \(0, 1\)"):
        split_validation(rows_with([0, 0]), fraction)


ANIMALS = ("ant", "bee", "cat", "dog")


def animals():
    return pictures([0, 1, 2, 3, 1, 3, 3, 0], names=ANIMALS)


def selection(*names, masses=(), unit="class", rows=None, view=None):
    masses = masses or (1.0,) * len(names)
    ranked = [SourceClass(n, i, m, m, 2, "x", 0.1) for i, (n, m) in enumerate(zip(names, masses, strict=True))]
    ranked.append(SourceClass("left out", 99, 0.0, 0.0, 2, "x", 0.9))
    coverage = (TargetClass("x", 0, 2, names[0], 0.1, 0.0, 0.1),)
    return SourceSelection(
        "uot", len(names), ranked, coverage, n_effective=1.0, unit=unit, rows=rows, source="animals", view=view
    )


def view_of(data, *names):
    return classes_of(data, "", label_column="label", label_names=ANIMALS, classes=names)


def test_a_source_is_a_data_set_with_or_without_its_labels():
    source = open_source(animals())
    assert (source.labels.tolist(), source.class_names) == ([0, 1, 2, 3, 1, 3, 3, 0], ANIMALS)
    bare = open_source(animals(), labelled=False)
    assert (bare.labels, bare.class_names, len(bare)) == (None, (), 8)
    assert bare.labels_at(np.array([3, 3])).tolist() == [-1, -1]
    assert seen(bare) == seen(source)


def test_a_source_without_a_label_column_is_taken_as_it_is_streamed_too():
    data = pictures([None] * 3)
    for source in (open_source(data), open_source(data.to_iterable_dataset())):
        assert source.labels is None
        assert seen(source) == originals(0, 1, 2)


def test_a_source_may_be_of_one_class():
    assert open_source(selection("cat", view=view_of(animals(), "cat"))).labels.tolist() == [0]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_selection_gives_its_rows(streamed):
    data = animals().to_iterable_dataset() if streamed else animals()
    source = open_source(selection("dog", "bee", view=view_of(data, "dog", "bee")))
    assert (source.name, source.class_names, source.labels.tolist()) == ("animals", ("bee", "dog"), [0, 1, 0, 1, 1])
    assert seen(source) == originals(1, 3, 4, 5, 6)
    assert source.weights is None


def test_masses_are_shared_among_the_rows_of_their_class():
    chosen = selection("dog", "bee", masses=(3.0, 1.0), view=view_of(animals(), "dog", "bee"))
    assert open_source(chosen, weighted=True).weights.tolist() == [0.5, 1.0, 0.5, 1.0, 1.0]


def test_a_selection_read_from_a_file_finds_its_rows_in_the_data():
    source = open_source(selection("dog", "bee"), data=animals())
    assert seen(source) == originals(1, 3, 4, 5, 6)
    by_number = open_source(selection("c0", unit="cluster", rows=(5, 2)), data=animals())
    assert seen(by_number) == originals(2, 5)


def test_single_rows_are_drawn_by_their_own_weights_also_where_one_has_no_label():
    data = pictures(["cat", None, "dog", "cat"])
    rows, weights = (0, 1, 3), (0.5, 2.0, 1.5)
    chosen = SourceSelection(
        "uot", 0, (), (), n_effective=2.0, unit="sample", rows=rows, weights=weights, view=rows_of(data, "", rows)
    )
    found = open_source(chosen, weighted=True)
    assert found.class_names == ("cat",)
    assert found.weights.tolist() == [0.5, 1.5]


def test_a_selection_of_clusters_needs_no_labels():
    data = pictures([None] * 6)
    chosen = selection("c0", unit="cluster", rows=(1, 4), view=rows_of(data, "", (1, 4)))
    assert seen(open_source(chosen)) == originals(1, 4)
    with pytest.raises(ValueError, match="`weighted` must be False for a selection of cluster units"):
        open_source(chosen, weighted=True)


@pytest.mark.parametrize("data", [animals(), pictures(list("xyz")), animals().to_iterable_dataset()])
def test_a_selection_made_with_other_classes_is_refused(data):
    with pytest.raises(ValueError, match=r"2 of 2 chosen are not in .*: 'n01440764', 'n01443537'"):
        open_source(selection("n01440764", "n01443537"), data=data)


def test_a_selection_made_from_more_rows_is_refused():
    with pytest.raises(ValueError, match="has 8 rows where row 20 was chosen"):
        open_source(selection("c0", unit="cluster", rows=(20, 2)), data=animals())


def test_a_selection_without_data_says_so():
    with pytest.raises(ValueError, match="`data` must be given beside a selection that was read from a file or made"):
        open_source(selection("dog"))


@pytest.mark.parametrize("unit", ["cluster", "sample"])
def test_row_numbers_of_other_data_are_refused(unit):
    data = animals()
    made = {"source_images": open_rows(data).images_digest}
    chosen = replace(selection("c0", unit=unit, rows=(2, 0)), revisions=made)
    assert seen(open_source(chosen, data=data)) == originals(0, 2)
    assert seen(open_source(chosen, data=data.remove_columns("label"))) == originals(0, 2)
    assert seen(open_source(chosen, data=data.to_iterable_dataset())) == originals(0, 2)
    for other in (data.select(range(7)), data.select(range(7, -1, -1))):
        with pytest.raises(ValueError, match=r"`data` must be what the selection was made from, 8 rows.* other i"):
            open_source(chosen, data=other)


def test_masses_of_a_data_set_are_refused():
    with pytest.raises(ValueError, match="`weighted` must be False without a selection"):
        open_source(animals(), weighted=True)


def test_classes_taken_from_other_images_than_they_were_chosen_from_are_noted():
    data = animals()
    chosen = replace(selection("dog", "bee"), revisions={"source_images": open_rows(data).images_digest})
    assert open_source(chosen, data=data).notes == ()
    assert open_source(chosen, data=data.to_iterable_dataset()).notes == ()
    (note,) = open_source(chosen, data=data.select(range(7))).notes
    assert note.endswith("holds other images than those the selection was made from")
