"""From a candidate's preprocessing to what training sees of an image and what evaluation sees of it.

Stage one here as in ``zoo.preprocess``: an image to 8-bit pixels, on CPU workers. Mean and standard deviation are left
to ``Preprocess.batch`` on the device, so that every view of a candidate passes through the same second stage.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image

from hf_zoosel.training.geometry import Geometry, ToImage, find_geometry
from hf_zoosel.zoo import Preprocess

View = Callable[[Image.Image], np.ndarray]

STRONG = "rand-n2-m10-mstd101"  # mstd over 100: each magnitude is drawn uniformly up to 10


@dataclass(frozen=True)
class Augmentation:
    """What is done to the images that are trained on.

    Args:
        kind: ``"crop"``: a random part of the image, resized to the network's size, and what follows here;
            ``"none"``: what evaluation sees, and nothing that follows.
        scale: Least and largest area of the part, as shares of the image, in (0, 1].
        ratio: Narrowest and widest width / height of the part.
        hflip: Probability of a mirror image.
        vflip: Probability of a turn upside down (microscopy, aerial images).
        color_jitter: Strength of random changes of brightness, contrast and saturation; not beside ``auto_augment``.
        auto_augment: A policy of timm, such as ``"rand-m9-mstd0.5"``, ``"augmix-m3-w3"`` or ``"original"``.
        erase: Probability that a random rectangle is filled with the mean colour.

    Raises:
        ValueError: If a number is out of range or the policy is unknown.

    Reference:
        Area, ratio and flip are those of torchvision, timm's recipes and Liu et al. 2022 (arXiv:2111.12292), with the
        checkpoint's own interpolation. Random erasing, Zhong et al. (arXiv:1708.04896), is done on 8-bit pixels where
        timm erases normalised ones: the fill is the mean rounded to 1 / 255.

    Example:
        >>> Augmentation(auto_augment="rand-m9-mstd0.5", vflip=0.5).kind
        'crop'
    """

    kind: Literal["crop", "none"] = "crop"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.0
    auto_augment: str | None = None
    erase: float = 0.0

    def __post_init__(self) -> None:
        _check_types(self)
        object.__setattr__(self, "scale", tuple(self.scale))
        object.__setattr__(self, "ratio", tuple(self.ratio))
        if self.kind not in ("crop", "none"):
            raise ValueError(f"`kind` must be 'crop' or 'none', got {self.kind!r}.")
        for name, most in (("scale", 1.0), ("ratio", float("inf"))):
            pair = getattr(self, name)
            if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= most:
                raise ValueError(f"`{name}` must be two numbers, 0 < least <= largest <= {most}, got {pair}.")
        for name in ("hflip", "vflip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be a probability in [0, 1], got {getattr(self, name)}.")
        if not 0 <= self.color_jitter <= 1:
            raise ValueError(f"`color_jitter` must be in [0, 1], got {self.color_jitter}. 0.4 is usual.")
        if self.auto_augment is not None:
            _random_parts(self, Geometry((32, 32), "RGB"), (0.5, 0.5, 0.5))  # timm says what it does not know


def _check_types(options: Augmentation) -> None:
    for name in ("scale", "ratio"):
        pair = getattr(options, name)
        if not (isinstance(pair, list | tuple) and all(isinstance(end, int | float) for end in pair)):
            raise ValueError(f"`{name}` must be two numbers, got {pair!r}.")
    for name in ("hflip", "vflip", "erase", "color_jitter"):
        if not isinstance(getattr(options, name), int | float):
            raise ValueError(f"`{name}` must be a number, got {getattr(options, name)!r}.")


@dataclass(frozen=True)
class Views:
    """What is seen of an image.

    Attributes:
        train: The augmented view; draws from the global generators.
        strong: The same with RandAugment on top, for consistency training; likewise.
        evaluation: The view that is evaluated, the candidate's own preprocessing; draws nothing.
    """

    train: View
    strong: View
    evaluation: View


def make_views(preprocess: Preprocess, augmentation: Augmentation | None = None) -> Views:
    """Find what a candidate sees of an image, and make the views of it for training.

    Args:
        preprocess: The candidate's own. Where its pixels are not 8 bit, it is applied to the augmented image, which it
            resizes and crops once more.
        augmentation: What is done to training images; ``Augmentation()`` if None.

    Raises:
        CandidateError: If the preprocessing fails, or gives images different sizes.

    Reference:
        The strong view is that of Liu et al. 2022 for unlabelled sources, RandAugment with n = 2 and m = 10, by timm's
        operations, each of which is left out half of the time.

    Example:
        >>> from hf_zoosel.zoo.preprocess import from_timm
        >>> views = make_views(from_timm({"input_size": (3, 64, 64), "crop_pct": 0.875}))
        >>> views.evaluation(Image.new("RGB", (50, 40))).shape
        (64, 64, 3)
    """
    augmentation = Augmentation() if augmentation is None else augmentation
    geometry = find_geometry(preprocess)
    mean = preprocess.mean

    def random_view(options: Augmentation) -> View:
        parts = _random_parts(options, geometry, mean)
        if geometry.channels is None:
            return _Whole(parts, preprocess.pixels)
        fill = tuple(round(255 * value) for value in mean)
        return _Pixels(parts, geometry, _erasing(options.erase), fill)

    train = preprocess.pixels if augmentation.kind == "none" else random_view(augmentation)
    base = replace(augmentation, kind="crop", color_jitter=0.0, erase=0.0)
    strong = random_view(replace(base, auto_augment=STRONG))
    return Views(train, strong, preprocess.pixels)


@dataclass(frozen=True)
class _Pixels:
    """Steps from image to image, then 8-bit pixels; survives pickle."""

    steps: tuple[ToImage, ...]
    geometry: Geometry
    erasing: Any = None
    fill: tuple[int, ...] = (0, 0, 0)

    def __call__(self, image: Image.Image) -> np.ndarray:
        for step in self.steps:
            image = step(image)
        pixels = self.geometry.to_pixels(image)
        if self.erasing is None:
            return pixels
        kept = self.erasing(torch.ones(1, *pixels.shape[:2], dtype=torch.uint8)).numpy()[0, :, :, None]
        return np.where(kept, pixels, np.array(self.fill, dtype=np.uint8))


@dataclass(frozen=True)
class _Whole:
    """Steps from image to image, then a preprocessing that cannot be taken apart."""

    steps: tuple[ToImage, ...]
    pixels: View

    def __call__(self, image: Image.Image) -> np.ndarray:
        for step in self.steps:
            image = step(image)
        return self.pixels(image)


def _random_parts(options: Augmentation, geometry: Geometry, mean: tuple[float, ...]) -> tuple[ToImage, ...]:
    """The crop and flips of timm, and its colours or policy."""
    from timm.data import create_transform

    try:
        crop, colours, _ = create_transform(
            (3, *geometry.size),
            is_training=True,
            scale=options.scale,
            ratio=options.ratio,
            hflip=options.hflip,
            vflip=options.vflip,
            color_jitter=cast(float, options.color_jitter or None),  # 0 would be a transform that does nothing
            auto_augment=options.auto_augment,
            interpolation=geometry.interpolation,
            mean=mean * 3 if len(mean) == 1 else mean,
            use_prefetcher=True,
            separate=True,
        )
    except (AssertionError, KeyError, ValueError, IndexError) as error:  # timm's way to say it knows no such policy
        raise ValueError(
            f"`auto_augment` must be a policy of timm such as 'rand-m9-mstd0.5' or 'augmix-m3-w3', got "
            f"{options.auto_augment!r}."
        ) from error
    _mend_posterize(colours)
    return (crop, colours) if colours.transforms else (crop,)


def _mend_posterize(colours: Any) -> None:
    """Pillow 12 on refuses to keep no bit at all, which timm asks for at the ends of its range."""
    from timm.data.auto_augment import posterize

    policies: list[Any] = [getattr(one, "ops", None) or getattr(one, "policy", ()) for one in colours.transforms]
    operations = [op for policy in policies for some in policy for op in (some if isinstance(some, list) else [some])]
    for operation in operations:
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    from timm.data.auto_augment import posterize

    return posterize(image, max(1, bits), **options)


def _erasing(probability: float) -> Any:
    from timm.data.random_erasing import RandomErasing

    return RandomErasing(probability, mode="const", device="cpu") if probability else None
