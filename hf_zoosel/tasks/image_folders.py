"""Open a folder of images with one subfolder per class, possibly below ``train``, ``test`` and the like.

Written here because ``load_dataset("imagefolder")`` takes a class named "train" or "val" for a split, and a file
named ``test_3.jpg`` for test data. Folders with a metadata file are still its work.
"""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hf_zoosel.tasks.errors import NoLabelColumnError
from hf_zoosel.tasks.splits import SPLIT_WORDS, choose_split, split_word

if TYPE_CHECKING:
    from datasets import Dataset

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def open_image_folder(path: Path, split: str | None) -> "tuple[Dataset, str, tuple[str, ...]]":
    """Return the images of one split with their folders as labels, the split's name and notes.

    Raises:
        NoLabelColumnError: If there is no image in a class folder.
        NoSplitError: If the split does not exist.
    """
    splits = _split_folders(path)
    taken = choose_split(list(splits), split)
    notes: tuple[str, ...] = ()
    folder = splits[taken]
    if any((folder / file).is_file() for file in METADATA_FILES):
        return _load_with_metadata(folder), taken, notes
    classes = {child.name: files for child in _subfolders(folder) if (files := list(_images(child)))}
    if not classes:
        raise NoLabelColumnError(
            f"`dataset` must be a folder with one subfolder of images per class, got {str(folder)!r} without any. "
            "Move the images, or add a metadata.csv with the columns file_name and label."
        )
    if loose := sum(_is_image(file.name) for file in folder.iterdir() if file.is_file()):
        notes += (f"left out {loose} images beside the class folders",)
    return _labelled(classes), taken, notes


def _split_folders(path: Path) -> dict[str, Path]:
    """Map split names to folders; the folder itself is the training split unless its subfolders are splits.

    They are if one of a split's name holds class folders or metadata and none of another name does, or if all have
    exactly a split's name. Otherwise "train" and "train_station" are classes.
    """
    folders = [child for child in _subfolders(path) if next(_images(child), None) is not None]
    named = [folder for folder in folders if split_word(folder.name)]
    others = [folder for folder in folders if folder not in named]
    nested = any(map(_has_classes, named)) and not any(map(_has_classes, others))
    if not nested and not (folders and all(folder.name.lower() in SPLIT_WORDS for folder in folders)):
        return {"train": path}
    splits: dict[str, Path] = {}
    for folder in folders:
        word = split_word(folder.name)
        splits[word if word and word not in splits else folder.name] = folder
    return splits


def _has_classes(folder: Path) -> bool:
    has_metadata = any((folder / file).is_file() for file in METADATA_FILES)
    return has_metadata or any(next(_images(child), None) is not None for child in _subfolders(folder))


def _subfolders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _images(folder: Path) -> Iterator[str]:
    """Yield the paths of all image files below a folder, in sorted order."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        yield from (os.path.join(parent, file) for file in sorted(files) if _is_image(file))


def _is_image(name: str) -> bool:
    from PIL import Image

    return not name.startswith(".") and Path(name).suffix.lower() in Image.registered_extensions()


def _labelled(classes: dict[str, list[str]]) -> "Dataset":
    from datasets import ClassLabel, Dataset, Features, Image

    paths = [path for files in classes.values() for path in files]
    labels = [label for label, files in enumerate(classes.values()) for _ in files]
    features = Features({"image": Image(), "label": ClassLabel(names=list(classes))})
    return Dataset.from_dict({"image": paths, "label": labels}, features=features)


def _load_with_metadata(folder: Path) -> "Dataset":
    from datasets import load_dataset

    pattern = glob.escape(str(folder)) + "/**"
    try:
        return load_dataset("imagefolder", data_files={"train": pattern}, split="train")
    except Exception as error:  # datasets wraps what pandas and pyarrow raise in errors of its own
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(f"`dataset` must hold metadata for its images, {folder} does not: {reason}") from error
