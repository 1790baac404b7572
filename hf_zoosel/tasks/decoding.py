"""From the bytes of a file or an array of pixels to an upright 8-bit RGB image. Thread-safe, no state.

What is done to each kind of image:

* grey, palette, CMYK, YCbCr, LAB: ``convert("RGB")``, as timm and transformers do. Alpha is dropped, not composed.
* 16-bit (``I;16`` and its byte orders, uint16 arrays): divided by 257.
* 32-bit integers: full scale is 255 if no pixel exceeds it, else 65535, else the largest pixel of the image.
* floats: the same, and full scale is 1 if no pixel exceeds it. NaN and infinities become 0.
* EXIF orientation is applied. Of an animation the first frame is taken.
"""

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Pixels = np.ndarray[Any, np.dtype[Any]]

_FLOAT_SCALES = (1.0, 255.0, 65535.0)
_INTEGER_SCALES = (255.0, 65535.0)


class ImageError(ValueError):
    """An image that cannot be decoded; the message is the reason, in one line."""


def decode_file(data: bytes, mode: str | None = None) -> "Image.Image":
    """Decode the content of an image file.

    Args:
        data: The bytes of the file.
        mode: Pillow mode to pass through before RGB, as in ``datasets.Image(mode=...)``.

    Raises:
        ImageError: If the bytes are no image, a damaged one, or a decompression bomb.
    """
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ImageError("zero bytes")
    try:
        with Image.open(io.BytesIO(data)) as image:
            _refuse_bomb(image.size)
            return to_rgb(image, mode)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"unknown image format, the first bytes are {data[:8]!r}") from None
    except Exception as error:  # Pillow's plugins raise almost anything on damaged files
        raise ImageError(_one_line(error)) from error


def decode_array(pixels: Pixels) -> "Image.Image":
    """Decode an array of pixels.

    Args:
        pixels: Shape ``(height, width)``, ``(height, width, 1 | 3 | 4)`` or ``(1 | 3 | 4, height, width)``; the last
            axis is the channels where both could be.

    Raises:
        ImageError: If the shape is another or the pixels lie outside every known scale.
    """
    from PIL import Image

    shape = pixels.shape
    if pixels.ndim == 3 and shape[2] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)  # (height, width, channels)
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))):
        raise ImageError(
            f"array of shape {shape} is not (height, width), (height, width, 1 | 3 | 4) or channels first"
        )
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]
    return Image.fromarray(np.ascontiguousarray(_to_uint8(pixels))).convert("RGB")


def to_rgb(image: "Image.Image", mode: str | None = None) -> "Image.Image":
    """Return an opened image upright, as a new 8-bit RGB image without metadata."""
    from PIL import ExifTags, Image, ImageOps

    image.load()
    with suppress(Exception):  # damaged EXIF says nothing against the pixels
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
    if "transparency" in image.info:  # Pillow would try to carry it through the conversion, and warn
        image = image.copy()
        del image.info["transparency"]
    if mode is not None and mode != image.mode:
        image = image.convert(mode)
    if image.mode[0] in "IF":  # I, I;16, I;16B, I;16L, I;16N, F: convert("RGB") would clip these at 255
        pixels = np.asarray(image)
        image = Image.fromarray(_to_uint8(pixels.astype(np.uint16) if image.mode.startswith("I;16") else pixels))
    rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def _refuse_bomb(size: tuple[int, int]) -> None:
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > limit:
        raise ImageError(f"{size[0]} x {size[1]} pixels exceed PIL.Image.MAX_IMAGE_PIXELS = {limit}")


def _to_uint8(pixels: Pixels) -> Pixels:
    """Scale pixels of any real type to 0..255, see the head of this file."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    wide = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(wide.min()), float(wide.max())
    scales = _FLOAT_SCALES if pixels.dtype.kind == "f" else _INTEGER_SCALES
    full = 65535.0 if pixels.dtype == np.uint16 else next((scale for scale in scales if high <= scale), high)
    if low < -1e-3 * full:
        raise ImageError(f"pixels must not be negative, got {low:.3g}; give them as they were before normalisation")
    return np.rint(wide.clip(0.0) * (255.0 / full)).astype(np.uint8)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
