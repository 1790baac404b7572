"""Weights on disk: safetensors only, checked before anything is built from them."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from hf_zoosel.zoo.errors import CandidateError

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pth.tar")
INDEX = "model.safetensors.index.json"


def main_file(names: Collection[str], where: str) -> str:
    """The safetensors file a checkpoint loads from: ``model.safetensors``, or the index of its shards.

    Args:
        names: File names in the folder or repository.
        where: What to call it in an error.

    Raises:
        CandidateError: If there are none, naming pickled weights where those are what there is.
    """
    if "model.safetensors" in names:
        return "model.safetensors"
    if INDEX in names:
        return INDEX
    pickled = sorted(n for n in names if n.endswith(_PICKLED))
    if pickled:
        raise CandidateError(
            f"{where} holds only pickled weights ({', '.join(pickled[:3])}), which can run code when they are opened. "
            "Load them where you trust them and save them again as model.safetensors."
        )
    raise CandidateError(f"{where} holds no model.safetensors (its files: {', '.join(sorted(names)[:8]) or 'none'}).")


def weight_files(folder: Path) -> list[Path]:
    """Every file the weights of a checkpoint lie in: ``model.safetensors``, or the index and the shards it names.

    Raises:
        CandidateError: If there are none, or a shard is not there.
    """
    names = {path.name for path in folder.iterdir()}
    main = main_file(names, str(folder))
    shards = shards_of(folder / INDEX) if main == INDEX else []
    missing = [shard for shard in shards if shard not in names]
    if missing:
        raise CandidateError(f"{', '.join(missing[:3])} named in {INDEX} is not there. Download or save it again.")
    return [folder / main, *(folder / shard for shard in shards)]


def check_weights(folder: Path) -> None:
    """Refuse a checkpoint with an unsound file or a missing shard.

    Raises:
        CandidateError: If a file is truncated, empty or no safetensors file, or not there.
    """
    for file in weight_files(folder):
        if file.name != INDEX:
            _check_safetensors(file)


def shards_of(index: Path) -> list[str]:
    """The shards an index names, sorted.

    Raises:
        CandidateError: If it is damaged, or names a file of another folder.
    """
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CandidateError(f"{index.name} is damaged ({type(error).__name__}: {error}).") from None
    if not all(isinstance(shard, str) and Path(shard).name == shard for shard in shards):
        raise CandidateError(f"{index.name} must name files beside it, got {shards[:3]}.")
    return shards


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise CandidateError(
            f"{path.name} is empty, truncated or no safetensors file ({error}). Download or save it again."
        ) from None


def content_digest(paths: list[Path]) -> str:
    """What a local checkpoint is: the SHA-256 of its files, as ``sha256:...``."""
    hasher = hashlib.sha256()
    for path in sorted(paths):
        hasher.update(path.name.encode())
        with path.open("rb") as file:
            hasher.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{hasher.hexdigest()[:16]}"
