"""Load a data set from the Hub, or say in one sentence why it cannot be had."""

import re
from importlib.util import find_spec
from textwrap import shorten
from typing import TYPE_CHECKING

from hf_zoosel.tasks.splits import Opened

if TYPE_CHECKING:
    from datasets import Dataset


def open_hub(name: str, split: str | None) -> Opened:
    """Load one split of a Hub data set, "train" unless told otherwise.

    Args:
        name: ``organisation/name``, or ``name`` alone for the old ones.
        split: Any split ``load_dataset`` takes, also slices such as ``"train[:10%]"``.

    Raises:
        ValueError: If it does not exist, is gated, cannot be reached, lacks the split or needs a configuration.
    """
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(f"`dataset` must be an existing path or a Hub id such as 'org/name', got {name!r}.")
    if name.isidentifier() and find_spec(f"datasets.packaged_modules.{name}"):
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
    if isinstance(error.__cause__, GatedRepoError) or (isinstance(error, DatasetNotFoundError) and "gated" in reason):
        return "is gated. Accept its terms on its page, then log in with `hf auth login`"
    if isinstance(error, DatasetNotFoundError):
        return "does not exist on the Hub, or is private. Check the spelling, or log in with `hf auth login`"
    if isinstance(error, ConnectionError | OfflineModeIsEnabled):
        return f"cannot be reached and is not in the cache: {reason}. Load it once online, or pass a local path"
    if "Unknown split" in reason:
        return f"lacks the split: {reason}. Pass `split=` with the one to learn from"
    return f"cannot be loaded: {reason}. Load it with `datasets.load_dataset` and pass the result"
