"""A fine-tuned model's folder to the Hub, in one commit."""

import os
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from hf_zoosel.hub.card_facts import is_hub_id

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_WEIGHTS = "model.safetensors"
_HIDDEN_BUT_SENT = (".eval_results/[!.]*.yaml", ".gitattributes")
_IGNORED = ("logs/*", "run.json")  # of trackers; and whose the folder is, which says nothing elsewhere
_SAID = 300  # characters quoted of an answer


class PushError(Exception):
    """The Hub did not take a commit; the text says what to do."""


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "Upload model fine-tuned with hf_zoosel",
    ignore: Sequence[str] = _IGNORED,
    card: Callable[[str], str] | None = None,
) -> str:
    """Upload a folder to a model repository, which is made if it is not there.

    All files are one commit: when it fails the repository is what it was (a new one stays empty), and what had been
    uploaded by then is not uploaded again. Checkpoints, hidden files other than results of evaluations, and what
    ``ignore`` matches stay at home. Files of the repository that the folder lacks are left alone.

    Args:
        folder: Where the model lies; must hold ``model.safetensors``.
        repo_id: ``owner/name``, or ``name`` for a repository of one's own.
        private: Whether a new repository is private; the owner's default if None.
        revision: Branch to commit to, made if it is not there; the main branch if None.
        token: Access token; the one of ``hf auth login`` or ``HF_TOKEN`` if None.
        commit_message: First line of the commit.
        ignore: Patterns of paths that are not uploaded, such as ``"logs/*"``.
        card: Text of ``README.md`` by the repository's whole name; the folder's own file if None.

    Returns:
        Address of the commit; of the newest one where nothing has changed.

    Raises:
        ValueError: If the folder holds no whole ``model.safetensors``, a name is none, or the card is refused.
        PushError: If one is not logged in, may not write there, the Hub is out of reach, or it fails.
    """
    from huggingface_hub import HfApi

    files: dict[str, Path | bytes] = dict(_files(Path(folder), ignore))
    check_can_push(repo_id, token)
    try:
        return _commit(
            HfApi(token=token), files, repo_id, card=card, private=private, revision=revision, message=commit_message
        )
    except Exception as error:  # of the Hub, of whatever HTTP client it uses, of the file system
        raise _explained(error, repo_id) from error


def _files(folder: Path, ignore: Sequence[str]) -> dict[str, Path]:
    """Path in the repository -> file."""
    from safetensors import SafetensorError, safe_open

    if not (folder / _WEIGHTS).is_file():
        raise ValueError(
            f"`folder` must hold {_WEIGHTS}, got {folder} without one. Give the folder of a finished model."
        )
    try:
        with safe_open(folder / _WEIGHTS, "pt"):
            pass
    except SafetensorError as error:
        raise ValueError(
            f"`folder` must hold a whole {_WEIGHTS}, got a damaged one in {folder} ({error}). Train or copy it again."
        ) from None
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if _is_sent(name, ignore)}


def _is_sent(name: str, ignore: Sequence[str]) -> bool:
    if name.startswith("checkpoints/") or any(fnmatch(name, pattern) for pattern in ignore):
        return False
    is_hidden = any(part.startswith(".") for part in name.split("/"))
    return not is_hidden or any(fnmatch(name, pattern) for pattern in _HIDDEN_BUT_SENT)


def check_can_push(repo_id: str, token: str | None = None) -> None:
    """Refuse what could not be pushed to, before anything is trained for it; nothing is sent.

    Raises:
        ValueError: If the name is none.
        PushError: If one is not logged in, or offline.
    """
    from huggingface_hub import constants, get_token

    if not is_hub_id(repo_id):
        raise ValueError(
            f"`repo_id` must be `name` or `owner/name` of letters, digits, '-', '_' and '.', got {repo_id!r}. "
            "Correct it."
        )
    if constants.HF_HUB_OFFLINE:
        raise PushError(f"{repo_id} cannot be pushed to: HF_HUB_OFFLINE is set. Unset it and push again.")
    if (token or get_token()) is None:
        raise PushError(f"{repo_id} cannot be pushed to: you are not logged in. Run `hf auth login`, or set HF_TOKEN.")


def _commit(
    api: "HfApi",
    files: dict[str, Path | bytes],
    repo_id: str,
    *,
    card: Callable[[str], str] | None,
    private: bool | None,
    revision: str | None,
    message: str,
) -> str:
    from huggingface_hub import CommitOperationAdd

    owned = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/"):
        api.create_branch(owned, branch=revision, exist_ok=True)
    if card is not None:
        files["README.md"] = card(owned).encode()
    # not upload_folder: with hf_xet it commits large folders in parts
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    return str(api.create_commit(owned, operations, commit_message=message, revision=revision).commit_url)


_REFUSALS = {
    401: "your token is not valid, or has run out. Run `hf auth login` again",
    403: "your token may not write there. Take one with write access, or a repository of your own",
    404: "it is not there, or you may not see it. Check the name and the revision",
    412: "somebody else committed meanwhile. Push again",
}


def _explained(error: Exception, repo_id: str) -> Exception:
    """What went wrong, and what to do."""
    cause = _answered(error)
    text = " ".join(str(cause).split())
    said = text if len(text) <= _SAID else f"{text[: _SAID - 3]}..."
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status == 400:  # the header of the card, a file of a forbidden name
        return ValueError(f"`folder` must hold what the Hub takes, got an answer: {error} Correct it and push again.")
    if status in _REFUSALS:
        return PushError(f"{repo_id} cannot be pushed to: {_REFUSALS[status]}. The Hub's answer: {said}")
    return PushError(
        f"{repo_id} cannot be pushed to ({type(cause).__name__}: {said}). Check the network and HF_ENDPOINT and push "
        "again: a commit is whole or not there, and what has been uploaded is not uploaded again."
    )


def _answered(error: BaseException) -> BaseException:
    """The error that an answer of the Hub was, if this one was raised from it."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "response", None) is not None:
            return cause
        cause = cause.__cause__
    return error
