"""Features on disk, found again by what they were computed from.

One folder per (candidate weights, architecture, preprocessing, dtype, library versions, layout version);
in it chunks of rows, each row known by the digest of its image, each with one tensor a part (features,
source logits, gradients ...). A row is thus reused whatever data set, sample size, order or number of
processes asks for it, a metric that needs one more part adds just that, and a changed transform or
checkpoint never finds it. Chunks are written to a temporary name and renamed, so that a kill leaves no
half file.
"""

import errno
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hf_zoosel.zoo import Candidate
from hf_zoosel.zoo.atomic import replacing

LAYOUT = "2"
logger = logging.getLogger(__name__)
_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "pillow")


def default_cache_dir() -> Path:
    """``$HF_ZOOSEL_CACHE``, else ``zoosel`` in the Hugging Face home (``$HF_HOME``)."""
    if "HF_ZOOSEL_CACHE" in os.environ:
        return Path(os.environ["HF_ZOOSEL_CACHE"]).expanduser()
    return Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "zoosel"


@contextmanager
def open_store(cache: bool | str | os.PathLike[str] | None) -> Iterator["FeatureStore"]:
    """The feature store a person asked for.

    Args:
        cache: True or None for the default folder, a folder, or False for one that lasts as long as the call.
    """
    if cache is False:
        with tempfile.TemporaryDirectory(prefix="hf-zoosel-") as folder:
            yield FeatureStore(Path(folder))
    else:
        yield FeatureStore(default_cache_dir() if cache is True or cache is None else Path(cache).expanduser())


@dataclass(frozen=True)
class Chunk:
    """Some rows of one candidate.

    Attributes:
        digests: Of their images, ``(n, 16)`` uint8.
        parts: Each part asked for, ``(n, width)`` float32.
        absent: The parts the candidate cannot give, and why.
        n_parameters: Parameters of the whole network.
    """

    digests: np.ndarray
    parts: Mapping[str, Tensor]
    absent: Mapping[str, str]
    n_parameters: int


@dataclass
class FeatureStore:
    """Cached features below one folder."""

    folder: Path

    def entry(self, candidate: Candidate, dtype: str) -> "Entry":
        """The place for one candidate's rows."""
        identity = {
            "layout": LAYOUT,
            "versions": {library: version(library) for library in _LIBRARIES},
            "revision": candidate.revision,
            "architecture": candidate.architecture,
            "preprocess": candidate.preprocess.identity,
            "dtype": dtype,
        }
        key = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()
        folder = self.folder / f"v{LAYOUT}" / key
        return Entry(folder if candidate.preprocess.cacheable else None, identity)


@dataclass
class Entry:
    """One candidate's cached rows.

    Attributes:
        folder: Where the chunks lie; None keeps them in memory for this call (nothing to key them by).
        identity: What they were computed from; stored with them and compared when they are read.
    """

    folder: Path | None
    identity: Mapping[str, object]
    _in_memory: list[Chunk] = field(default_factory=list)

    def read(self, wanted: Collection[bytes], parts: Collection[str]) -> list[Chunk]:
        """The sound chunks that hold some of the wanted rows (a candidate's other tasks are not read).

        They carry the wanted parts only. A damaged file is removed with a warning, to be computed again.
        """
        from safetensors import SafetensorError

        chunks, rows = list(self._in_memory), frozenset(wanted)
        for path in sorted(self.folder.glob("*.safetensors")) if self.folder else []:
            try:
                chunk = _read(path, rows, parts, self.identity)
                chunks.extend([] if chunk is None else [chunk])
            except FileNotFoundError:  # another process removed it first
                continue
            except OSError as error:  # says nothing against the file: another user's, too many open
                logger.warning("Cached features %s cannot be read (%s); computing them again.", path, error)
            except (SafetensorError, ValueError, KeyError) as error:
                logger.warning("Cached features %s are damaged (%s); computing them again.", path, error)
                with suppress(OSError):  # a folder that cannot be written
                    path.unlink()
        return chunks

    def append(self, chunk: Chunk) -> None:
        """Keep rows; where the disk does not take them they stay in memory until the call ends."""
        if self.folder is None:
            self._in_memory.append(chunk)
            return
        try:
            _write(self.folder, chunk, self.identity)
        except OSError as error:
            why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            logger.warning(
                "Features cannot be cached in %s (%s); this call goes on without. "
                "Free some space, or pass `cache=` another folder.",
                self.folder,
                why,
            )
            self._in_memory.append(chunk)

    def forget(self) -> None:
        """Let go of what is kept in memory."""
        self._in_memory.clear()


def rows_with(chunks: Sequence[Chunk], wanted: Sequence[bytes], part: str) -> set[int]:
    """Positions in ``wanted`` whose rows have the part, or are known to be of a candidate that cannot give it."""
    there = {bytes(digest) for c in chunks if part in c.parts or part in c.absent for digest in c.digests}
    return {position for position, digest in enumerate(wanted) if digest in there}


def assemble(chunks: Sequence[Chunk], wanted: Sequence[bytes], part: str) -> Tensor | None:
    """One part of the wanted rows, ``(n_wanted, width)`` float32; None where a wanted row lacks it."""
    having = [chunk for chunk in chunks if part in chunk.parts]
    place = {bytes(digest): (number, row) for number, c in enumerate(having) for row, digest in enumerate(c.digests)}
    if not wanted or not place.keys() >= set(wanted):
        return None
    places = [place[digest] for digest in wanted]
    if len(having) == 1 and places == [(0, row) for row in range(len(having[0].digests))]:
        return having[0].parts[part]  # the usual case needs no copy
    out = torch.empty(len(places), having[places[0][0]].parts[part].shape[1], dtype=torch.float32)
    numbers = np.asarray([number for number, _ in places])
    rows = torch.as_tensor([row for _, row in places])
    for number, chunk in enumerate(having):
        here = torch.from_numpy(np.flatnonzero(numbers == number))
        out[here] = chunk.parts[part][rows[here]]
    return out


def _write(folder: Path, chunk: Chunk, identity: Mapping[str, object]) -> None:
    from safetensors.torch import save

    tensors = {"digests": torch.from_numpy(chunk.digests), **chunk.parts}
    metadata = {
        "identity": json.dumps(identity),
        "n_parameters": str(chunk.n_parameters),
        "absent": json.dumps(dict(chunk.absent)),
        **{f"checksum {name}": _checksum(tensor) for name, tensor in tensors.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = chunk.digests.tobytes() + json.dumps([sorted(chunk.parts), sorted(chunk.absent)]).encode()
    name = hashlib.blake2b(content, digest_size=8).hexdigest()
    with replacing(folder / f"{name}.safetensors") as temporary:
        temporary.write_bytes(save(tensors, metadata))


def _read(
    path: Path, wanted: frozenset[bytes], parts: Collection[str], identity: Mapping[str, object]
) -> Chunk | None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        digests = _checked(file.get_tensor("digests"), "digests", metadata).numpy()
        absent = {part: why for part, why in json.loads(metadata["absent"]).items() if part in parts}
        here = set(file.keys()).intersection(parts)
        if wanted.isdisjoint(map(bytes, digests)) or not (here or absent):
            return None
        tensors = {part: _checked(file.get_tensor(part), part, metadata) for part in here}
    if json.loads(metadata["identity"]) != identity:
        raise ValueError("it belongs to another candidate")
    return Chunk(digests, tensors, absent, int(metadata["n_parameters"]))


def _checked(tensor: Tensor, name: str, metadata: Mapping[str, str]) -> Tensor:
    if _checksum(tensor) != metadata.get(f"checksum {name}"):
        raise ValueError(f"the checksum of its {name} does not match")
    return tensor


def _checksum(tensor: Tensor) -> str:
    hasher = hashlib.blake2b(f"{tuple(tensor.shape)} {tensor.dtype}".encode(), digest_size=16)
    hasher.update(tensor.contiguous().numpy().data)
    return hasher.hexdigest()
