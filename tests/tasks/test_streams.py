import gc
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import Features, Image, IterableDataset, Value
from PIL import Image as Pillow

from hf_zoosel.tasks import ImageError, load_task


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def spooled(folder):
    return list(folder.glob("hf-zoosel-*"))


def same_images(one, other):
    return one.images.encoded(range(len(one))) == other.images.encoded(range(len(other)))


@pytest.mark.parametrize("max_per_class", [1, 3, 25, None])
def test_a_data_set_and_its_stream_give_the_same_task(toy, pets, max_per_class):
    labels = [None, *np.random.default_rng(0).integers(0, 3, 60).tolist(), -1]
    data = toy(labels, pets)
    fixed, streamed = (
        load_task(d, max_per_class=max_per_class, seed=3) for d in (data, data.to_iterable_dataset(num_shards=4))
    )
    assert fixed.rows.tolist() == streamed.rows.tolist()
    assert fixed.labels.tolist() == streamed.labels.tolist()
    assert (fixed.class_names, fixed.n_available, fixed.notes) == (
        streamed.class_names,
        streamed.n_available,
        streamed.notes,
    )
    assert same_images(fixed, streamed)


def test_a_smaller_sample_lies_within_a_larger_one(toy):
    data = toy(np.random.default_rng(0).integers(0, 3, 150).tolist())
    ten, more = (set(load_task(data, max_per_class=k).rows.tolist()) for k in (10, 25))
    assert len(ten) == 30
    assert ten < more


def test_a_stream_is_read_once():
    reads = []

    def rows():
        reads.append("start")
        yield from ({"image": np.full((2, 2), i, np.uint8), "label": i % 2} for i in range(5))
        reads.append("end")

    task = load_task(IterableDataset.from_generator(rows))
    assert reads == ["start", "end"]
    assert len(task) == 5


def test_a_stream_is_not_decoded_while_it_is_read(png):
    rows = [
        {"image": {"bytes": content, "path": None}, "label": i % 2} for i, content in enumerate([b"bad", png(), b""])
    ]
    features = Features({"image": Image(), "label": Value("int64")})
    assert len(load_task(datasets.Dataset.from_list(rows, features=features).to_iterable_dataset())) == 3


def test_a_stream_of_pillow_images_after_map_is_read(toy, pixels):
    stream = toy([0, 1]).to_iterable_dataset().map(lambda row: {**row, "image": row["image"].rotate(90, expand=True)})
    assert stream.features is None
    assert pixels(load_task(stream), 1)[0, 0].tolist() == [1, 0, 7]
    assert pixels(load_task(stream)).shape == (4, 3, 3)


def test_a_stream_whose_first_label_is_missing_is_understood():
    rows = [{"image": np.zeros((2, 2)), "label": label} for label in (None, "b", "a")]
    task = load_task(IterableDataset.from_generator(lambda: iter(rows)))
    assert task.class_names == ("a", "b")


def test_odd_columns_of_a_stream_do_no_harm(png):
    rows = [{"image": png(i), "label": i, "extra": object()} for i in range(2)]
    assert len(load_task(IterableDataset.from_generator(lambda: iter(rows)))) == 2


def test_formats_of_streams_are_not_applied(toy):
    data = toy([0, 1])
    stream = data.to_iterable_dataset().with_format("numpy")
    assert same_images(load_task(stream), load_task(data))


def test_an_empty_stream_is_refused():
    with pytest.raises(ValueError, match="must have rows"):
        load_task(IterableDataset.from_generator(lambda: iter(())))


def odd_images(png):
    return [
        png(3),
        {"bytes": png(4), "path": None},
        Pillow.new("P", (3, 2), 7),
        np.eye(3, dtype=np.float32),
        [[1, 2]],
        None,
    ]


def test_all_of_a_stream_goes_through_a_file_that_goes_with_the_task(png, temporary):
    def rows():
        for i, image in enumerate(odd_images(png)):
            yield {"image": image, "label": i % 2}

    everything = load_task(IterableDataset.from_generator(rows), max_per_class=None, image_column="image")
    capped = load_task(IterableDataset.from_generator(rows), max_per_class=25, image_column="image")
    assert len(spooled(temporary)) == 1
    assert same_images(everything, capped)
    assert [e.digest for e in everything.images.encoded([5, 0, 5])] == [
        e.digest for e in capped.images.encoded([5, 0, 5])
    ]
    with pytest.raises(ImageError, match="null"):
        everything.images.encoded([5])[0].decode()
    del everything
    gc.collect()
    assert spooled(temporary) == []


def test_the_file_goes_when_the_stream_fails(png, temporary):
    def rows():
        yield {"image": png(), "label": 0}
        raise RuntimeError("the line is cut")

    with pytest.raises(RuntimeError, match="the line is cut"):
        load_task(IterableDataset.from_generator(rows), max_per_class=None)
    gc.collect()
    assert spooled(temporary) == []


def test_a_stream_larger_than_one_batch_is_spooled_in_several(temporary):
    image = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)

    def rows():
        yield from ({"image": image + np.uint8(i), "label": i % 2} for i in range(9))

    task = load_task(IterableDataset.from_generator(rows), max_per_class=None)
    assert Path(spooled(temporary)[0], "images.arrow").stat().st_size > 9 * image.nbytes
    np.testing.assert_array_equal(np.asarray(task.images.encoded([7])[0].decode()), image + np.uint8(7))
