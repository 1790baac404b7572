from itertools import chain, islice

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, IterableDataset, Value

from hf_zoosel.tasks import load_task
from hf_zoosel.tasks.labels import MISSING
from hf_zoosel.tasks.rows import open_rows
from hf_zoosel.tasks.spans import disjoint, joined, pieces


def read(rows, size=4, start=0):
    """Row numbers, codes and image digests of all chunks."""
    chunks = list(rows.chunks(size, start=start))
    numbers = list(chain.from_iterable(chunk.rows for chunk in chunks))
    codes = np.concatenate([chunk.codes for chunk in chunks]) if chunks else np.zeros(0)
    digests = [e.digest for chunk in chunks for e in chunk.images.encoded(range(len(chunk.images)))]
    return numbers, codes.tolist(), digests


KINDS = {
    "data set": lambda data: data,
    "stream": lambda data: data.to_iterable_dataset(num_shards=3),
    "joined streams": lambda data: datasets.concatenate_datasets(
        [data.select(range(4)).to_iterable_dataset(), data.select(range(4, len(data))).to_iterable_dataset()]
    ),
    "dict": lambda data: DatasetDict({"train": data}),
    "formatted": lambda data: data.with_format("numpy").with_transform(lambda batch: {"nothing": [0]}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 4, 11, 50])
def test_every_row_comes_once_in_order_whatever_the_chunk(toy, pets, kind, size):
    labels = np.random.default_rng(0).integers(-1, 3, 11).tolist()
    data = toy(labels, pets)
    rows = open_rows(KINDS[kind](data))
    numbers, codes, digests = read(rows, size)
    values = list(dict.fromkeys(label for label in labels if label != -1))
    assert numbers == list(range(11))
    assert codes == [MISSING if label == -1 else values.index(label) for label in labels]
    whole = load_task(toy([0, 1] * 5 + [0]), max_per_class=None).images
    assert digests == [e.digest for e in whole.encoded(range(11))]
    assert read(rows, size) == (numbers, codes, digests)  # as often as wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [0, 5, 11, 20])
def test_reading_starts_at_any_row(toy, kind, start):
    rows = open_rows(KINDS[kind](toy(list("abcabcabcab"))))
    numbers, _, digests = read(rows, 3, start)
    assert numbers == list(range(start, 11))
    assert digests == read(rows, 100)[2][start:]


@pytest.mark.parametrize("kind", ["data set", "stream"])
def test_spans_with_gaps_give_just_their_rows(toy, kind):
    rows = open_rows(KINDS[kind](toy(list(range(10)))))
    coder = rows.new_coder()
    spans = [range(1, 3), range(6, 8), range(9, 14), range(20, 22)]
    assert [chunk.rows for chunk in rows.read(iter(spans), coder)] == [range(1, 3), range(6, 8), range(9, 10)]
    assert coder.values == [1, 2, 6, 7, 9]


def test_class_names_are_known_before_the_pass_or_at_its_end(toy, pets):
    assert open_rows(toy([0, 2], pets)).class_names == ("cat", "dog", "eel")
    assert open_rows(toy([0, 2], pets).to_iterable_dataset()).class_names == ("cat", "dog", "eel")
    rows = open_rows(toy(["x", "y", "x"]))
    coder = rows.new_coder(["y"])
    assert rows.class_names is None
    assert [chunk.codes.tolist() for chunk in rows.read([range(3)], coder)] == [[1, 0, 1]]


def test_a_stream_holds_one_chunk_and_is_begun_once():
    given, begun = [], []

    def generate():
        begun.append(True)
        for i in range(100):
            given.append(i)
            yield {"image": np.full((2, 2), i, np.uint8), "label": i % 2}

    rows = open_rows(IterableDataset.from_generator(generate))
    assert max(given) < 16  # what the columns and the content are told from
    next(islice(rows.chunks(20), 1, None))
    assert max(given) < 40
    assert len(begun) == 1


def test_a_stream_that_does_not_declare_its_columns_is_understood(png):
    examples = [{"image": png(i), "label": label, "extra": object()} for i, label in enumerate([None, "b", "a"])]
    rows = open_rows(IterableDataset.from_generator(lambda: iter(examples)))
    assert read(rows)[1] == [MISSING, 0, 1]


@pytest.mark.parametrize("kind", ["data set", "stream"])
def test_data_without_labels_is_fine(toy, kind):
    data = KINDS[kind](toy([0, 1, 0]).remove_columns("label"))
    rows = open_rows(data)
    assert not rows.is_labelled
    assert rows.new_coder() is None
    assert read(rows)[:2] == ([0, 1, 2], [MISSING] * 3)
    with pytest.raises(ValueError, match="a label column, got none"):
        open_rows(data, labelled=True)


def test_labels_are_left_out_when_told(toy):
    data = toy([0.5, 1.5])  # a regression target
    assert not open_rows(data, labelled=False).is_labelled
    with pytest.raises(ValueError, match="regression target"):
        open_rows(data)
    with pytest.raises(ValueError, match="`label_column` must be None for `labelled=False`"):
        open_rows(data, labelled=False, label_column="label")


def test_two_columns_of_classes_are_not_chosen_between(toy):
    data = toy([0, 1]).rename_column("label", "fine_label").add_column("label", ["a", "b"])
    with pytest.raises(ValueError, match="Pass `label_column=`"):
        open_rows(data)
    assert open_rows(data, label_column="label").new_coder().column == "label"


@pytest.mark.parametrize("data", [Dataset.from_dict({"image": [], "label": []}), {}.items])
def test_nothing_to_read_is_refused(data):
    if callable(data):
        data = IterableDataset.from_generator(lambda: iter(()))
    with pytest.raises(ValueError, match="must have rows"):
        open_rows(data)


def test_what_is_no_class_is_refused_where_it_stands(png):
    examples = [{"image": png(), "label": label} for label in [1, 2, "three"]]
    rows = open_rows(IterableDataset.from_generator(lambda: iter(examples)))
    assert next(rows.chunks(2)).codes.tolist() == [0, 1]
    with pytest.raises(ValueError, match="must be int in every row, got 'three'"):
        read(rows, 2)


def stream(toy, labels=(0, 1, 0, 1)):
    return toy(list(labels)).to_iterable_dataset()


def test_an_identity_lasts_and_tells_data_apart(toy):
    data = toy([0, 1, 0, 1])
    assert open_rows(data).identity == open_rows(toy([0, 1, 0, 1])).identity
    others = [toy([0, 1, 1, 1]), data.select([1, 0, 2, 3]), stream(toy), stream(toy).take(3), stream(toy).skip(1)]
    others += [stream(toy, [0, 1, 0, 0]), stream(toy).shuffle(seed=1), stream(toy).shuffle(seed=2)]
    others += [data.rename_column("label", "target")]
    identities = [str(open_rows(other).identity) for other in (data, *others)]
    assert len(set(identities)) == len(identities)
    assert open_rows(data, labelled=False).identity != open_rows(data).identity


def test_the_identity_of_a_stream_does_not_depend_on_how_far_it_was_read(toy):
    once = stream(toy).shuffle(seed=3, buffer_size=2)
    before = open_rows(once).identity
    next(iter(once))
    assert open_rows(once).identity == before
    list(once)
    assert open_rows(once).identity == before
    assert open_rows(stream(toy).shuffle(seed=3, buffer_size=2)).identity == before
    once.set_epoch(1)
    assert open_rows(once).identity != before


def test_a_generator_of_the_same_code_with_other_rows_is_another_source(tmp_path, png):
    def generate(path):
        for i in range(3):
            yield {"image": (path / f"{i}").read_bytes(), "label": i}

    for i in range(3):
        (tmp_path / str(i)).write_bytes(png(i))
    data = IterableDataset.from_generator(generate, gen_kwargs={"path": tmp_path})
    before = open_rows(data).identity
    assert open_rows(data).identity == before
    (tmp_path / "1").write_bytes(png(7))
    assert open_rows(data).identity != before


def test_a_stream_that_cannot_be_pickled_has_no_identity(png):
    class Closed:
        def __reduce__(self):
            raise TypeError("not this one")

    def unchanged(row, closed):
        return row

    examples = [{"image": png(i), "label": i} for i in range(3)]
    data = IterableDataset.from_generator(lambda: iter(examples)).map(unchanged, fn_kwargs={"closed": Closed()})
    rows = open_rows(data)
    assert rows.identity is None
    assert len(read(rows)[0]) == 3


def test_paths_parquet_and_splits_open_as_they_do_for_a_task(toy, tmp_path, png):
    toy([0, 1, 1]).to_parquet(tmp_path / "train.parquet")
    toy([0]).to_parquet(tmp_path / "test.parquet")
    assert len(read(open_rows(tmp_path))[0]) == 3
    assert open_rows(tmp_path, split="test").n_rows == 1
    for name in ("a", "b"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        (tmp_path / "folder" / name / "1.png").write_bytes(png(ord(name)))
    rows = open_rows(tmp_path / "folder")
    assert rows.class_names == ("a", "b")
    assert read(rows)[1] == [0, 1]
    streamed = datasets.load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), streaming=True)
    assert len(read(open_rows(streamed))[0]) == 3
    assert open_rows(streamed).identity == open_rows(streamed).identity


def test_images_are_not_decoded_while_they_are_read():
    features = Features({"image": Image(), "label": ClassLabel(names=["a"]), "n": Value("int64")})
    damaged = [{"image": {"bytes": b"bad", "path": None}, "label": 0, "n": i} for i in range(3)]
    data = Dataset.from_list(damaged, features=features)
    assert len(read(open_rows(data))[0]) == len(read(open_rows(data.to_iterable_dataset()))[0]) == 3


def test_spans_join_and_leave_pieces():
    assert joined([range(5, 7), range(0, 3), range(2, 4), range(9, 9)]) == [range(0, 4), range(5, 7)]
    assert list(islice(pieces([range(0, 4), range(6, 7)], 3, None), 4)) == [
        range(4, 6),
        range(7, 10),
        range(10, 13),
        range(13, 16),
    ]
    assert list(pieces([range(10)], 3, 10)) == []


def test_of_overlapping_parts_the_larger_is_taken():
    parts = {"old": [range(0, 2), range(4, 6)], "all": [range(0, 6)], "next": [range(6, 7)], "astride": [range(5, 8)]}
    assert list(disjoint(parts.items())) == ["all", "next"]
