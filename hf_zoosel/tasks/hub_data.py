"""Open a data set of the Hub by its id, with the configuration and the revision that are named in it."""

import re
from importlib.util import find_spec
from textwrap import shorten
from typing import TYPE_CHECKING, NamedTuple

from hf_zoosel.tasks.errors import NoSplitError
from hf_zoosel.tasks.splits import Opened

if TYPE_CHECKING:
    from datasets import Dataset

_HUB_NAME = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?::([^:@/]+))?(?:@([\w./-]+))?")


class HubName(NamedTuple):
    """What a data set of the Hub is called: ``org/name``, ``org/name:configuration``, each with ``@revision``.

    Attributes:
        repo_id: Its id.
        config: One of its configurations, which the Hub calls subsets; None where it needs no naming.
        revision: A branch, tag or commit; None for the newest.
    """

    repo_id: str
    config: str | None
    revision: str | None

    @classmethod
    def parse(cls, name: str) -> "HubName":
        """Take a name apart.

        Raises:
            ValueError: If nothing on the Hub could be called so.

        Example:
            >>> HubName.parse("org/cells:small@v1.0")
            HubName(repo_id='org/cells', config='small', revision='v1.0')
        """
        found = _HUB_NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"`dataset` must be an existing path or a Hub id such as 'org/name', got {name!r}.")
        return cls(*found.groups())


def open_hub(name: str, split: str | None) -> Opened:
    """Load one split of a data set of the Hub, "train" unless told otherwise; slices such as "train[:10%]" are splits.

    Raises:
        ValueError: If it cannot be loaded: what it lacks, and what to do.
        NoSplitError: If it has no such split.
    """
    parsed = HubName.parse(name)
    if parsed.repo_id.isidentifier() and find_spec(f"datasets.packaged_modules.{parsed.repo_id}"):
        # load_dataset would take it for "whatever lies in the working folder"
        raise ValueError(f"`dataset` must be a path or a Hub id, got the loader {name!r}. Pass the folder to load.")
    taken = split or "train"
    return Opened(_load(name, parsed, taken), name, taken)


def _load(name: str, parsed: HubName, split: str) -> "Dataset":
    from datasets import load_dataset

    try:
        return load_dataset(parsed.repo_id, parsed.config, split=split, revision=parsed.revision)
    except Exception as error:  # of datasets, huggingface_hub, httpx and the file system
        refused = NoSplitError if "Unknown split" in str(error) else ValueError
        raise refused(f"`dataset` {name!r} {_explain(error, parsed)}.") from error


def _explain(error: Exception, parsed: HubName) -> str:
    """Say what is wrong and what to do about it."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

    reason = shorten(str(error) or type(error).__name__, 300).rstrip(".")
    missing = isinstance(error, DatasetNotFoundError)
    if isinstance(error.__cause__, GatedRepoError) or (missing and "is a gated dataset" in reason):
        return "is gated. Accept its terms on its page, then log in with `hf auth login`"
    if missing and parsed.revision is not None and reason.startswith("Revision"):
        return f"has no revision {parsed.revision!r}. Name a branch, a tag or a commit of it"
    if missing:
        return "does not exist on the Hub, or is private. Check the spelling, or log in with `hf auth login`"
    if isinstance(error, ConnectionError | OfflineModeIsEnabled):
        return f"cannot be reached and is not in the cache: {reason}. Load it once online, or pass a local path"
    if "Unknown split" in reason:
        return f"lacks the split: {reason}. Pass `split=` with the one to learn from"
    if reason.startswith(("Config name is missing", "BuilderConfig")):
        return f"must be named with one of its configurations, {parsed.repo_id}:NAME. {reason}"
    return f"cannot be loaded: {reason}. Load it with `datasets.load_dataset` and pass the result"
