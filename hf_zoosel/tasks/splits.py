"""Which split of a data set is used: train, or the one that was named; a test split never by itself."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Union

from hf_zoosel.tasks.errors import NoSplitError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}  # those of datasets.data_files


@dataclass(frozen=True)
class Opened:
    """One split of a data set.

    Attributes:
        data: The split itself.
        name: Short human name of the data set.
        split: Name of the split, empty if it has none.
        notes: What a person should know about how it was opened.
    """

    data: Union["Dataset", "IterableDataset"]
    name: str
    split: str
    notes: tuple[str, ...] = ()


def choose_split(available: Collection[str], split: str | None) -> str:
    """Choose one of the splits of a data set.

    Args:
        available: Names of its splits.
        split: The one asked for; None for "train", or the only one unless it is held out by its name.

    Returns:
        The name of the split.

    Raises:
        NoSplitError: If it does not exist.
        ValueError: If none is asked for and none is clearly for training.

    Example:
        >>> choose_split(["train", "test"], None)
        'train'
    """
    listing = ", ".join(available)
    if not available:
        raise ValueError("`dataset` must have a split, got an empty dict. Load it again.")
    if split is None:
        only = next(iter(available)) if len(available) == 1 else ""
        split = "train" if "train" in available else only
        if not split or split_word(split) in ("validation", "test"):
            raise ValueError(
                f"`dataset` must have a split named 'train', got {listing}. Pass `split=` with the one to learn from; "
                "the labels of a test split should not reach a score."
            )
    if split not in available:
        close = get_close_matches(split, available, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise NoSplitError(f"`split` must be one of {listing}, got {split!r}.{hint}", list(available))
    return split


def held_out_note(split: str) -> tuple[str, ...]:
    """What is said where a data set that was not asked for by split is one that its name holds out."""
    held_out = split_word(split) in ("validation", "test")
    return (f"the data set given is the split {split!r}: its labels reach the scores",) if held_out else ()


def split_word(name: str) -> str | None:
    """Return the split a folder or file name speaks of, by the words datasets knows.

    Example:
        >>> split_word("train-00000-of-00002"), split_word("Val"), split_word("brain")
        ('train', 'validation', None)
    """
    words = re.split(r"[-._ 0-9]+", name.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)
