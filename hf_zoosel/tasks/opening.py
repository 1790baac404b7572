"""From whatever a person calls a data set to one split of it."""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Union

from hf_zoosel.tasks.local import open_local
from hf_zoosel.tasks.splits import Opened, choose_split, held_out_note

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

DatasetLike = Union["Dataset", "DatasetDict", "IterableDataset", "IterableDatasetDict", str, os.PathLike[str]]


def open_split(dataset: DatasetLike, split: str | None) -> Opened:
    """Take one split of a data set: train, unless another is named.

    Raises:
        TypeError: If it is no data set, path or Hub id.
        ValueError: If it does not exist or cannot be opened, or the split is not in it.
    """
    import datasets

    if isinstance(dataset, str | os.PathLike):
        return _open_path_or_id(dataset, split)
    if isinstance(dataset, datasets.DatasetDict | datasets.IterableDatasetDict):
        taken = choose_split(list(dataset), split)
        return Opened(dataset[taken], _name(dataset[taken]), taken)
    if isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
        return _take_as_it_is(dataset, split)
    raise TypeError(
        f"`dataset` must be a datasets.Dataset, DatasetDict, their iterable kinds, a path or a Hub id, got "
        f"{type(dataset).__name__}. Make one with `datasets.Dataset.from_dict`."
    )


def _open_path_or_id(dataset: str | os.PathLike[str], split: str | None) -> Opened:
    text = os.fspath(dataset)
    path = Path(text).expanduser()
    if text and path.exists():  # an empty text would be the working folder
        return open_local(path.absolute(), split)
    looks_local = (
        text.startswith((".", "~", os.sep)) or "\\" in text or text.count("/") > 1 or text.endswith(".parquet")
    )
    if looks_local or not isinstance(dataset, str):
        raise ValueError(f"`dataset` must be an existing path, got {text!r}. The working folder is {os.getcwd()!r}.")
    return _open_hub(text, split)


def _open_hub(name: str, split: str | None) -> Opened:
    """Load one split of a Hub data set, "train" unless told otherwise; slices such as "train[:10%]" are splits."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(f"`dataset` must be an existing path or a Hub id such as 'org/name', got {name!r}.")
    if name.isidentifier() and find_spec(f"datasets.packaged_modules.{name}"):
        # load_dataset would take it for "whatever lies in the working folder"
        raise ValueError(f"`dataset` must be a path or a Hub id, got the loader {name!r}. Pass the folder to load.")
    taken = split or "train"
    return Opened(_load(name, taken), name, taken)


def _load(name: str, split: str) -> "Dataset":
    from datasets import load_dataset

    try:
        return load_dataset(name, split=split)
    except Exception as error:  # of datasets, huggingface_hub, httpx and the file system
        raise ValueError(f"`dataset` {name!r} {_explain(error)}.") from error


def _explain(error: Exception) -> str:
    """Say what is wrong and what to do about it."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

    reason = shorten(str(error) or type(error).__name__, 300).rstrip(".")
    missing = isinstance(error, DatasetNotFoundError)
    if isinstance(error.__cause__, GatedRepoError) or (missing and "is a gated dataset" in reason):
        return "is gated. Accept its terms on its page, then log in with `hf auth login`"
    if missing:
        return "does not exist on the Hub, or is private. Check the spelling, or log in with `hf auth login`"
    if isinstance(error, ConnectionError | OfflineModeIsEnabled):
        return f"cannot be reached and is not in the cache: {reason}. Load it once online, or pass a local path"
    if "Unknown split" in reason:
        return f"lacks the split: {reason}. Pass `split=` with the one to learn from"
    return f"cannot be loaded: {reason}. Load it with `datasets.load_dataset` and pass the result"


def _take_as_it_is(dataset: "Dataset | IterableDataset", split: str | None) -> Opened:
    own = str(dataset.split) if dataset.split is not None else ""
    if split is not None and split != own:
        raise ValueError(
            f"`split` must be None for a data set that is one split already, got {split!r}. Leave it out."
        )
    return Opened(dataset, _name(dataset), own, held_out_note(own) if split is None else ())


def _name(dataset: "Dataset | IterableDataset") -> str:
    return dataset.info.dataset_name or dataset.info.builder_name or "dataset"
