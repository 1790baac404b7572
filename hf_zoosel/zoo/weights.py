"""Weights on disk: safetensors only, checked before anything is built from them."""

import hashlib
import json
from pathlib import Path

from hf_zoosel.zoo.errors import CandidateError

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pth.tar")
INDEX = "model.safetensors.index.json"


def weight_files(names: list[str], where: str) -> list[str]:
    """The safetensors files a checkpoint loads from, out of the names of its files.

    Args:
        names: File names in the folder or repository.
        where: What to call it in an error.

    Returns:
        ``["model.safetensors"]``, or the index and every shard.

    Raises:
        CandidateError: If there are none, naming pickled weights where those are what there is.
    """
    if "model.safetensors" in names:
        return ["model.safetensors"]
    if INDEX in names:
        return [INDEX, *(n for n in names if n.startswith("model-") and n.endswith(".safetensors"))]
    pickled = sorted(n for n in names if n.endswith(PICKLED))
    if pickled:
        raise CandidateError(
            f"{where} holds only pickled weights ({', '.join(pickled[:3])}), which can run code when they are opened. "
            "Load them where you trust them and save them again as model.safetensors."
        )
    raise CandidateError(f"{where} holds no model.safetensors (its files: {', '.join(sorted(names)[:8]) or 'none'}).")


def check_weights(folder: Path) -> None:
    """Refuse a checkpoint with an unsound file or a missing shard.

    Raises:
        CandidateError: If a file is truncated, empty or no safetensors file, or one that the index names
            is not there.
    """
    names = [path.name for path in folder.iterdir()]
    files = weight_files(names, str(folder))
    if files[0] == INDEX:
        missing = sorted(set(shards_of(folder / INDEX)).difference(names))
        if missing:
            raise CandidateError(f"{', '.join(missing[:3])} named in {INDEX} is not there. Download or save it again.")
    for name in files:
        if name != INDEX:
            _check_safetensors(folder / name)


def shards_of(index: Path) -> list[str]:
    """The shards an index names.

    Raises:
        CandidateError: If it is damaged.
    """
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CandidateError(f"{index.name} is damaged ({type(error).__name__}: {error}).") from None
    return [shard for shard in shards if isinstance(shard, str) and "/" not in shard]


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
