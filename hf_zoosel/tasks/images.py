"""One image as it lies in a data set: read but not decoded, named by a digest of its content."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_zoosel.tasks.decoding import ImageError, Pixels, decode_array, decode_file, to_rgb

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Encoded:
    """An image before decoding; two of equal content have equal digests, whatever data set they come from.

    Attributes:
        digest: 16 bytes, blake2b of the content and of the way it is kept (file, or array with its type and shape).
        content: The bytes of an image file, an array of pixels, or the reason why there is neither.
        mode: Pillow mode the data set asks for, ``datasets.Image(mode=...)``.

    Example:
        >>> import numpy as np
        >>> encode(np.zeros((2, 3), np.uint8)).decode().size
        (3, 2)
        >>> encode(b"not an image").decode()
        Traceback (most recent call last):
        hf_zoosel.tasks.decoding.ImageError: unknown image format, the first bytes are b'not an i'
    """

    digest: bytes
    content: bytes | Pixels | str = field(repr=False, compare=False)
    mode: str | None = field(default=None, compare=False)

    def decode(self) -> "Image.Image":
        """Return the image upright, as a new 8-bit RGB image; safe to call from many threads.

        Raises:
            ImageError: If it cannot be decoded, with the reason in one line.
        """
        if isinstance(self.content, str):
            raise ImageError(self.content)
        if isinstance(self.content, bytes):
            return decode_file(self.content, self.mode)
        return decode_array(self.content)


def encode(value: object, mode: str | None = None) -> Encoded:
    """Read what an image column holds; failures are kept and raised by ``decode``.

    Args:
        value: Bytes, a path or URL, a dict with ``bytes`` or ``path``, a Pillow image, an array, a tensor, nested
            lists or None. Pillow images are kept as the array of their RGB pixels.
        mode: Pillow mode to pass through before RGB, for files only.
    """
    try:
        content = _content(value)
    except ImageError as error:
        return Encoded(_digest(b"unreadable", str(error).encode()), str(error))
    if isinstance(content, bytes):
        kept_as = "file" if mode in (None, "RGB") else f"file {mode}"
        return Encoded(_digest(kept_as.encode(), content), content, mode)
    header = f"array {content.dtype.str} {content.shape}"
    return Encoded(_digest(header.encode(), content.tobytes()), content)


def _content(value: object) -> bytes | Pixels:
    from PIL import Image

    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None:
        raise ImageError("no image (null)")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str | os.PathLike):
        return _read(os.fspath(value))
    if isinstance(value, Image.Image):
        return _pixels_of(value)
    return _array(value)


def _read(path: str) -> bytes:
    try:
        if "://" not in path:
            return Path(path).read_bytes()
        import fsspec  # what datasets streams with: https://, hf://, zip://...::, file://

        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    except FileNotFoundError:
        raise ImageError(f"missing file: {_last(path)}") from None
    except Exception as error:  # a URL can fail in the way of any file system
        raise ImageError(f"{type(error).__name__} on reading {_last(path)}") from error


def _last(path: str) -> str:
    """The file's own name: reasons are published with models, folders of somebody's machine should not be."""
    return path.partition("::")[0].replace("\\", "/").rpartition("/")[2]


def _pixels_of(image: "Image.Image") -> Pixels:
    try:
        return np.asarray(to_rgb(image))
    except Exception as error:  # opened lazily from a damaged file
        reason = getattr(error, "strerror", None) or error  # without the path
        raise ImageError(f"Pillow image that does not load: {reason}") from error


def _array(value: object) -> Pixels:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, tensors that need gradients
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "buif":
        raise ImageError(f"a value of type {type(value).__name__} is not an image")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _digest(kept_as: bytes, content: bytes) -> bytes:
    hasher = hashlib.blake2b(kept_as + b"\0", digest_size=16)
    hasher.update(content)
    return hasher.digest()
