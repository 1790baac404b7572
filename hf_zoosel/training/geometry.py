"""How a candidate's preprocessing cuts an image, found by looking at what it makes of trial images.

A ramp from black to white tells how much of an image is seen, a plain colour the order of the channels, and a texture
which interpolation was used. That holds for timm, transformers and a person's own function alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, cast

import numpy as np
from PIL import Image

from hf_zoosel.zoo import CandidateError, Preprocess

Channels = Literal["RGB", "BGR", "L"]
CropMode = Literal["center", "squash", "border"]
ToImage = Callable[[Image.Image], Image.Image]

_COLOUR = (200, 100, 50)
_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")
_MODES: tuple[CropMode, ...] = ("center", "squash", "border")
_SIDE = 512
_FAITHFUL = 1.0  # mean difference in levels of 256; libraries round the same resize differently


@dataclass(frozen=True)
class Geometry:
    """What an evaluation transform does, beside mean and standard deviation.

    Attributes:
        size: Height and width of the pixels.
        channels: Their order; None for pixels that are not 8 bit, or are made of the colours in another way.
        crop_pct: Side of the crop as a share of the resized image, as in timm; 1 where it could not be found.
        crop_mode: ``"center"``, resize the shorter edge and crop; ``"squash"``, resize both; ``"border"``, resize the
            longer edge and pad.
        interpolation: Pillow's name of it.
        is_faithful: Whether these reproduce the preprocessing, to the rounding.
    """

    size: tuple[int, int]
    channels: Channels | None
    crop_pct: float = 1.0
    crop_mode: CropMode = "center"
    interpolation: str = "bilinear"
    is_faithful: bool = False

    def to_image(self, mean: tuple[float, ...]) -> ToImage:
        """Resize and crop as described; ``mean`` is what ``"border"`` pads with."""
        from timm.data import create_transform
        from torchvision.transforms import Compose

        whole = create_transform(
            (3, *self.size),
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            mean=mean * 3 if len(mean) == 1 else mean,
            use_prefetcher=True,
        )
        return cast(ToImage, Compose(whole.transforms[:-1]))  # the last makes a tensor

    def to_pixels(self, image: Image.Image) -> np.ndarray:
        """The 8-bit pixels ``(height, width, channels)`` of an image of the right size."""
        if self.channels == "L":
            return np.asarray(image.convert("L"))[..., None]
        pixels = np.asarray(image.convert("RGB"))
        return pixels[..., ::-1] if self.channels == "BGR" else pixels


def find_geometry(preprocess: Preprocess) -> Geometry:
    """Find out what a preprocessing does.

    Raises:
        CandidateError: If it fails on a trial image, or gives pixels of another size for another image.
    """
    wide = _pixels(preprocess, _texture(390, 290))
    tall = _pixels(preprocess, _texture(290, 390))
    if wide.shape != tall.shape:
        raise CandidateError(
            f"its preprocessing must give all images one size, got {wide.shape} and {tall.shape}. Pass it with a "
            "transform that also crops: (module, transform)."
        )
    if wide.dtype != np.uint8:
        return Geometry((wide.shape[1], wide.shape[2]), None)
    found = Geometry((wide.shape[0], wide.shape[1]), _channels(preprocess))
    return found if found.channels is None else _fitted(found, preprocess, wide)


def _fitted(found: Geometry, preprocess: Preprocess, wanted: np.ndarray) -> Geometry:
    """The mode, interpolation and size before the crop that come closest on a texture."""
    side = _resized_edge(preprocess)
    pairs = product((side, side - 1, side + 1), sorted(set(found.size)))
    shares = dict.fromkeys(_share(edge, side) for side, edge in pairs if side >= edge) or {1.0: None}
    best, least = found, np.inf
    for share, mode, interpolation in product(shares, _MODES, _INTERPOLATIONS):
        made = replace(found, crop_pct=share, crop_mode=mode, interpolation=interpolation)
        pixels = made.to_pixels(made.to_image(preprocess.mean)(_texture(390, 290)))
        difference = float(np.abs(pixels.astype(np.int16) - wanted).mean())
        if difference < least:
            best, least = made, difference
        if least == 0:
            break
    return replace(best, is_faithful=True) if least < _FAITHFUL else found


def _share(edge: int, side: int) -> float:
    """The simplest share from which timm's floor(edge / share) gets this side again."""
    simple = [0.875, *(np.arange(100, 0, -1) / 100), *(np.arange(1000, 0, -1) / 1000), edge / side]
    return float(next((share for share in simple if int(edge / share) == side), np.nextafter(edge / side, 0)))


def _resized_edge(preprocess: Preprocess) -> int:
    """Side of a square image before the crop, from the slope of a ramp across it."""
    ramp = np.linspace(0, 255, _SIDE).round().astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp[None, :, None], (_SIDE, _SIDE, 3)).copy())
    pixels = _pixels(preprocess, image)
    line = pixels[pixels.shape[0] // 2, :, 0].astype(np.float64)
    slope = np.polyfit(np.arange(len(line)), line, 1)[0]
    return round(255 * _SIDE / (_SIDE - 1) / slope) if slope > 0 else pixels.shape[1]


def _channels(preprocess: Preprocess) -> Channels | None:
    """Which channels a plain colour comes out in."""
    image = Image.new("RGB", (_SIDE, _SIDE), _COLOUR)
    pixels = _pixels(preprocess, image)
    middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].tolist()
    grey = np.asarray(image.convert("L"))[0, :1].tolist()
    known: tuple[tuple[Channels, list[int]], ...] = (("RGB", [*_COLOUR]), ("BGR", [*_COLOUR[::-1]]), ("L", grey))
    return next((name for name, colour in known if colour == middle), None)


def _texture(width: int, height: int) -> Image.Image:
    """Blots with no symmetry."""
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)


def _pixels(preprocess: Preprocess, image: Image.Image) -> np.ndarray:
    try:
        return preprocess.pixels(image)
    except Exception as error:  # a person's transform may fail in any way
        raise CandidateError(f"its preprocessing failed: {type(error).__name__}: {error}.") from error
