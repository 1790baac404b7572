import gc
from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict, load_dataset

from hf_zoosel.tasks import load_task

REAL = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.fixture
def tree(tmp_path, png):
    """Writes images, or other files, at these places below a folder called ``pets``."""

    def write(*places):
        for number, place in enumerate(places):
            path = tmp_path / "pets" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
        return tmp_path / "pets"

    return write


def test_class_folders_are_read_as_datasets_reads_them(tree):
    folder = tree("dog/2.png", "cat/a.jpg", "dog/10.PNG", "cat/.hidden.png", "cat/notes.txt", ".git/x/y.png")
    task, theirs = load_task(str(folder)), load_dataset("imagefolder", data_dir=str(folder), split="train")
    assert (task.name, task.split, task.class_names, len(task)) == ("pets", "train", ("cat", "dog"), 3)
    assert [task.class_names[label] for label in task.labels] == [
        theirs.features["label"].names[y] for y in theirs["label"]
    ]
    assert task.images.encoded(range(3)) == load_task(theirs).images.encoded(range(3))


def test_of_split_folders_only_train_is_read(tree):
    folder = tree("train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/emu/4.png")
    task = load_task(folder)
    assert (task.split, task.class_names, len(task)) == ("train", ("cat", "dog"), 2)
    assert load_task(folder, split="test").class_names == ("cat", "emu")


@pytest.mark.parametrize("classes", [("bus", "train"), ("train_station", "test tube"), ("val", "dev_board", "emu")])
def test_a_class_may_be_called_like_a_split(tree, classes):
    assert load_task(tree(*(f"{name}/1.png" for name in classes))).class_names == tuple(sorted(classes))


def test_files_may_be_called_like_a_split(tree):
    assert len(load_task(tree("cat/test_1.png", "dog/train_1.png", "dog/val.png"))) == 3


def test_images_below_a_class_folder_belong_to_the_class(tree):
    assert load_task(tree("cat/old/1.png", "cat/2.png", "dog/3.png")).labels.tolist() == [0, 0, 1]


def test_linked_class_folders_are_followed(tree, tmp_path):
    folder = tree("cat/1.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.png").write_bytes((folder / "cat/1.png").read_bytes())
    (folder / "dog").symlink_to(tmp_path / "elsewhere")
    assert load_task(folder).class_names == ("cat", "dog")


def test_images_beside_the_class_folders_are_counted_in_a_note(tree):
    assert "left out 1 images beside the class folders" in load_task(tree("cat/1.png", "dog/2.png", "cover.png")).notes


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of datasets, which leaves the metadata file open
def test_a_metadata_file_gives_the_labels(tree):
    folder = tree("1.png", "2.png")
    (folder / "metadata.csv").write_text("file_name,label\n1.png,dog\n2.png,cat\n")
    assert load_task(folder).class_names == ("cat", "dog")
    gc.collect()


def test_a_folder_is_found_from_another_working_folder(tree, tmp_path, monkeypatch):
    tree("cat/1.png", "dog/2.png")
    monkeypatch.chdir(tmp_path)
    task = load_task("pets")
    monkeypatch.chdir("/")
    assert task.images.encoded([0])[0].decode().size == (4, 3)


@pytest.mark.parametrize("places", [("1.png", "2.png"), ("notes/readme.txt",), ("train/1.png", "test/2.png")])
def test_a_folder_without_class_folders_is_refused(tree, places):
    with pytest.raises(ValueError, match="one subfolder of images per class"):
        load_task(tree(*places))


def test_a_parquet_file_is_read_with_its_features(toy, pets, tmp_path):
    toy([0, 2, 2], pets).to_parquet(str(tmp_path / "train.parquet"))
    task = load_task(tmp_path / "train.parquet")
    assert (task.class_names, task.split, task.name) == (("cat", "eel"), "train", tmp_path.name)


def test_of_a_folder_of_parquet_files_only_train_is_read(toy, tmp_path):
    folder = tmp_path / "my [odd] *set"
    (folder / "data").mkdir(parents=True)
    for name, labels in (
        ("train-00000-of-00002", [0, 1]),
        ("train-00001-of-00002", [1, 2]),
        ("test-00000-of-00001", [9]),
    ):
        toy(labels).to_parquet(str(folder / "data" / f"{name}.parquet"))
    task = load_task(folder)
    assert (task.class_names, len(task), task.name) == (("0", "1", "2"), 4, "my [odd] *set")


def test_parquet_files_in_hidden_folders_are_not_data(toy, tmp_path):
    (tmp_path / ".cache").mkdir()
    toy([0, 1, 0]).to_parquet(tmp_path / "train.parquet")
    toy([5, 6, 7]).to_parquet(tmp_path / ".cache" / "train.parquet")
    assert load_task(tmp_path).class_names == ("0", "1")


def test_parquet_files_of_no_split_are_for_training_if_no_others_are(toy, tmp_path):
    for name, labels in (("part-0", [0, 1]), ("part-1", [1, 2]), ("test", [9])):
        toy(labels).to_parquet(str(tmp_path / f"{name}.parquet"))
    assert load_task(tmp_path).class_names == ("0", "1", "2")
    toy([3, 4]).to_parquet(str(tmp_path / "train.parquet"))
    assert load_task(tmp_path).class_names == ("3", "4")


def test_a_test_file_is_read_when_it_is_named(toy, tmp_path):
    toy([0, 1]).to_parquet(str(tmp_path / "test.parquet"))
    assert load_task(tmp_path / "test.parquet").split == "test"
    with pytest.raises(ValueError, match="split named 'train', got test"):
        load_task(tmp_path)


def test_parquet_written_by_pandas_is_read(png, tmp_path):
    import pandas

    frame = pandas.DataFrame({"image": [png(1), png(2)], "label": ["b", "a"]})
    frame.to_parquet(tmp_path / "data.parquet")
    assert load_task(tmp_path / "data.parquet").class_names == ("a", "b")


def test_a_saved_data_set_is_read(toy, pets, tmp_path):
    toy([0, 1], pets).save_to_disk(tmp_path / "one")
    DatasetDict(train=toy([0, 2], pets), test=toy([1], pets)).save_to_disk(tmp_path / "both")
    assert load_task(tmp_path / "one").class_names == ("cat", "dog")
    task = load_task(tmp_path / "both")
    assert (task.class_names, task.split, task.name) == (("cat", "eel"), "train", "both")
    assert load_task(tmp_path / "both" / "train").name == "both"


@pytest.mark.parametrize("path", ["./nowhere", "a/b/c", "~/nowhere", "nowhere.parquet", Path("nowhere"), "/nowhere"])
def test_a_path_that_does_not_exist_is_refused(path):
    with pytest.raises(ValueError, match=r"`dataset` must be an existing path, got .* working folder"):
        load_task(path)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("table.csv", b"image,label\n", r"folder or a \.parquet file.*load_dataset"),
        ("bad.parquet", b"nonsense", "must hold parquet files of one schema"),
        ("saved/state.json", b"{", "readable by `datasets.load_from_disk`"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of datasets, which leaves the bad file open
def test_unreadable_files_are_refused(tmp_path, name, content, match):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match):
        load_task(path.parent if path.parent != tmp_path else path)
    gc.collect()


@pytest.mark.skipif(not REAL.is_dir(), reason="real images are not beside this repository")
@pytest.mark.parametrize(("name", "n_classes"), [("magnetic_tile", 6), ("trashnet", 6), ("dtd10", 10)])
def test_real_images_are_drawn_and_decoded(name, n_classes):
    task = load_task(REAL / name, max_per_class=10)
    assert (task.name, task.n_classes, len(task)) == (name, n_classes, 10 * n_classes)
    assert {image.decode().mode for image in task.images.encoded(range(len(task)))} == {"RGB"}
    assert np.bincount(task.labels).tolist() == [10] * n_classes
