"""Open a data set that lies on this machine: class folders of images, parquet files, or saved by datasets."""

import glob
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hf_zoosel.tasks.image_folders import METADATA_FILES, open_image_folder
from hf_zoosel.tasks.splits import Opened, choose_split, held_out_note, split_word


def open_local(path: Path, split: str | None) -> Opened:
    """Open one split of a folder or a parquet file.

    Args:
        path: A ``.parquet`` file, a folder of them, a folder written by ``save_to_disk``, or a folder of images with
            one subfolder per class, possibly below ``train``, ``test`` and the like.
        split: The split to take; None for the training split.

    Raises:
        ValueError: If it is none of these or the split does not exist.
    """
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise ValueError(
                f"`dataset` must be a folder or a .parquet file, got {str(path)!r}. Open other files with "
                "`datasets.load_dataset` and pass the result."
            )
        named = split_word(path.stem) or "train"
        opened = _open_parquet(path, {named: [path]}, split or named)
        return replace(opened, notes=held_out_note(named) if split is None else ())
    if any((path / file).is_file() for file in ("dataset_dict.json", "state.json")):
        return _open_saved(path, split)
    parquet = sorted(file for file in path.rglob("*.parquet") if _is_data(file.relative_to(path)))
    if parquet:
        return _open_parquet(path, _group_by_split(parquet, path), split)
    data, taken, notes = open_image_folder(path, split)
    return Opened(data, _name(path), taken, notes)


def _open_saved(path: Path, split: str | None) -> Opened:
    from datasets import Dataset, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except Exception as error:  # damaged JSON or Arrow files fail in many ways
        raise ValueError(f"`dataset` must be readable by `datasets.load_from_disk`, {path} is not: {error}") from error
    if isinstance(saved, Dataset):
        own = str(saved.split or split or "train")
        return Opened(
            saved, _name(path), choose_split([own], split or own), held_out_note(own) if split is None else ()
        )
    taken = choose_split(list(saved), split)
    return Opened(saved[taken], _name(path), taken)


def _open_parquet(path: Path, files: dict[str, list[Path]], split: str | None) -> Opened:
    from datasets import load_dataset

    taken = choose_split(list(files), split)
    patterns = [glob.escape(str(file)) for file in files[taken]]
    try:
        data = load_dataset("parquet", data_files={"train": patterns}, split="train")
    except Exception as error:  # datasets wraps what pyarrow raises in errors of its own
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(f"`dataset` must hold parquet files of one schema, {path} does not: {reason}") from error
    return Opened(data, _name(path), taken)


def _is_data(file: Path) -> bool:
    """Whether a file is no metadata and in no hidden folder (a cache, an environment)."""
    return file.name not in METADATA_FILES and not any(part.startswith(".") for part in file.parts)


def _group_by_split(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """Sort files by the split their folder or name speaks of; files of none are for training if no others are."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        parts = file.relative_to(root).with_suffix("").parts
        groups[next(filter(None, map(split_word, parts)), "")].append(file)
    if unnamed := groups.pop("", []):
        groups["other" if "train" in groups else "train"] = unnamed
    return dict(groups)


def _name(path: Path) -> str:
    """Name the data set after its folder, or the one above if that says no more than "train"."""
    path = path.resolve()
    generic = path.is_file() or split_word(path.name) is not None or path.name == "data"
    if path.is_file() and split_word(path.stem) is None:
        return path.stem
    return (path.parent.name if generic else path.name) or "dataset"
