"""Hub repositories as folders: configuration first, weights when they are needed, always one pinned commit."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hf_zoosel.zoo.errors import CandidateError, one_line
from hf_zoosel.zoo.weights import INDEX, main_file, shards_of

_TIMEOUT = 10.0  # seconds
_SMALL_FILES = ("preprocessor_config.json", "processor_config.json")  # what is built from needs them beside it


class OutOfReachError(CandidateError):
    """The Hub does not answer, or must not be asked, and the local cache does not hold what is needed."""


@dataclass(frozen=True)
class Pinned:
    """A repository at one commit: ``folder`` holds its configuration, and its weights after :meth:`fetch`.

    ``files`` are the names of all it holds, as far as that is known.
    """

    repo_id: str
    commit: str
    folder: Path
    weights: str
    files: frozenset[str]

    def beside(self, name: str) -> Callable[[], Path] | None:
        """What brings another file of the repository from the Hub; None where it has no such file."""
        return partial(_download, self.repo_id, name, self.commit) if name in self.files else None

    def fetch(self) -> None:
        """Bring the safetensors.

        Raises:
            CandidateError: If they cannot be had.
        """
        _download(self.repo_id, self.weights, self.commit)
        if self.weights == INDEX:
            for shard in shards_of(self.folder / INDEX):
                _download(self.repo_id, shard, self.commit)


def pin(repo_id: str, revision: str | None = None) -> Pinned:
    """Fetch a repository's configuration files.

    Works from the local Hub cache where the network is absent or switched off.

    Args:
        repo_id: ``org/name``.
        revision: Branch, tag or commit; the default branch if None.

    Raises:
        CandidateError: If the repository does not exist, is gated, is out of reach, or holds no safetensors.
    """
    from huggingface_hub import model_info
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:  # one request, without the client's half minute of retries where there is no network
        siblings = model_info(repo_id, revision=revision, timeout=_TIMEOUT).siblings or []
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise CandidateError(_reason(repo_id, error)) from None
    except Exception as error:  # no network, HF_HUB_OFFLINE, a Hub that is down, a proxy that is not the Hub
        return _from_cache(repo_id, revision, error)
    names = [sibling.rfilename for sibling in siblings]
    if "config.json" not in names:
        raise CandidateError(f"{repo_id} has no config.json, so it is no timm or transformers checkpoint.")
    weights = main_file(names, repo_id)
    config = _download(repo_id, "config.json", revision)  # by branch, so that the cache knows it offline
    for name in _SMALL_FILES:
        if name in names:
            _download(repo_id, name, config.parent.name)
    return Pinned(repo_id, config.parent.name, config.parent, weights, frozenset(names))


def _from_cache(repo_id: str, revision: str | None, cause: Exception) -> Pinned:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(hf_hub_download(repo_id, "config.json", revision=revision, local_files_only=True)).parent
    except LocalEntryNotFoundError:
        raise OutOfReachError(_reason(repo_id, cause)) from None
    names = {path.name for path in folder.iterdir()}
    if "model.safetensors" in names:
        return Pinned(repo_id, folder.name, folder, "model.safetensors", frozenset(names))
    if INDEX in names and names.issuperset(shards_of(folder / INDEX)):
        return Pinned(repo_id, folder.name, folder, INDEX, frozenset(names))
    raise OutOfReachError(_reason(repo_id, cause))


def _download(repo_id: str, name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo_id, name, revision=revision))
    except Exception as error:  # of the Hub, of whatever HTTP client it uses, of the file system
        raise CandidateError(_reason(repo_id, error)) from None


def _reason(repo_id: str, error: Exception) -> str:
    """One line that says what to do (a gated repository is also a missing one, in the Hub's errors)."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{repo_id} is gated. Accept its terms on its Hub page and log in with `hf auth login`."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo_id} has no such revision. Look at its branches and commits on the Hub."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{repo_id} does not exist on the Hub, or is private. Check the name, or log in with `hf auth login`."
    if isinstance(error, errors.HFValidationError):
        return f"{repo_id!r} is no local folder, no timm model, and no valid Hub id (org/name)."
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{repo_id} is not in the local cache and HF_HUB_OFFLINE is set. Unset it, or download it first."
    cause = error.__cause__ or error  # the client wraps what really happened in advice of its own
    return (
        f"{repo_id} is not in the local cache and cannot be fetched from the Hub ({one_line(cause, 200)}). "
        "Check the network and HF_ENDPOINT."
    )
