"""From whatever a person calls a data set to one split of it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Union

from hf_zoosel.tasks.hub_data import HubName, open_hub
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


def hub_id(dataset: object) -> str | None:
    """The Hub's id of a data set that was named by it; None for a path, or one in memory.

    Example:
        >>> hub_id("org/cells:small@v1.0"), hub_id(".")
        ('org/cells', None)
    """
    if not isinstance(dataset, str) or Path(dataset).expanduser().exists():
        return None
    return HubName.parse(dataset).repo_id


def _open_path_or_id(dataset: str | os.PathLike[str], split: str | None) -> Opened:
    text = os.fspath(dataset)
    path = Path(text).expanduser()
    if text and path.exists():  # an empty text would be the working folder
        return open_local(path.absolute(), split)
    is_deep = text.partition("@")[0].count("/") > 1  # a revision may hold slashes, an id one
    looks_local = text.startswith((".", "~", os.sep)) or "\\" in text or is_deep or text.endswith(".parquet")
    if looks_local or not isinstance(dataset, str):
        raise ValueError(f"`dataset` must be an existing path, got {text!r}. The working folder is {os.getcwd()!r}.")
    return open_hub(text, split)


def _take_as_it_is(dataset: "Dataset | IterableDataset", split: str | None) -> Opened:
    own = str(dataset.split) if dataset.split is not None else ""
    if split is not None and split != own:
        raise ValueError(
            f"`split` must be None for a data set that is one split already, got {split!r}. Leave it out."
        )
    return Opened(dataset, _name(dataset), own, held_out_note(own) if split is None else ())


def _name(dataset: "Dataset | IterableDataset") -> str:
    return dataset.info.dataset_name or dataset.info.builder_name or "dataset"
