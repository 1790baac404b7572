"""Preprocessing in two stages, so that candidates that differ only in mean and std share the costly one.

Stage one (CPU workers): RGB image -> pixels, resized and cropped, still 8 bit where the preprocessing
allows it: a quarter of the memory and of the copy to a GPU. Stage two (on the device, whole batch):
scale to [0, 1], subtract the mean, divide by the standard deviation.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hf_zoosel.zoo.errors import CandidateError
from hf_zoosel.zoo.fingerprint import fingerprint

Pixels = np.ndarray  # uint8 (height, width, 3), or float32 (channels, height, width) ready for the network


@dataclass(frozen=True)
class Preprocess:
    """One candidate's preprocessing.

    Attributes:
        key: Digest of stage one; candidates with equal keys share its result.
        pixels: Stage one, thread-safe: an RGB image to ``uint8 (height, width, 3)``, or to
            ``float32 (channels, height, width)`` where the preprocessing cannot be split.
        mean: Channel means of stage two, in [0, 1] units. Used for 8-bit pixels only.
        std: Channel standard deviations of stage two.
        cacheable: Whether ``key`` identifies stage one (false for a callable that cannot be hashed).
    """

    key: str
    pixels: Callable[[Image.Image], Pixels]
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    cacheable: bool = True

    @property
    def identity(self) -> str:
        """Text that differs whenever the network's input would."""
        return json.dumps([self.key, self.mean, self.std])

    def batch(self, pixels: Tensor) -> Tensor:
        """Stage two: stacked pixels, already on the device, to the network's float32 input.

        Args:
            pixels: ``uint8 (n, height, width, channels)`` or ``float32 (n, channels, height, width)``.

        Returns:
            ``float32 (n, channels, height, width)``, channels-last in memory for 8-bit pixels (not on MPS).
        """
        if pixels.dtype != torch.uint8:
            return pixels
        constants = torch.tensor([self.mean, self.std], dtype=torch.float32)  # made on a GPU they would wait for it
        mean, std = constants.to(pixels.device, non_blocking=pixels.is_cuda)
        width = pixels.shape[2]  # along whole lines of pixels: by threes it takes ten times as long
        lines = pixels.flatten(2).float()  # (n, height, width * channels)
        lines.mul_((1 / (255 * std)).repeat(width)).sub_((mean / std).repeat(width))  # (x / 255 - mean) / std
        images = lines.view(pixels.shape).permute(0, 3, 1, 2)
        return images.contiguous() if pixels.device.type == "mps" else images  # as `network.moved_to` has the weights


def digest(*parts: Any) -> str:
    """A short stable digest of JSON-able parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def from_timm(pretrained_cfg: dict[str, Any]) -> Preprocess:
    """The evaluation transform timm prescribes for a checkpoint's data configuration."""
    from timm.data import create_transform, resolve_data_config

    config = resolve_data_config({}, pretrained_cfg=pretrained_cfg)
    channels = config["input_size"][0]
    if channels not in (1, 3):
        raise CandidateError(
            f"it takes {channels} channels and images have 3. "
            "Pass it with a transform that makes them: (module, transform)."
        )
    mean, std = _for_channels(config.pop("mean"), channels), _for_channels(config.pop("std"), channels)
    transform = create_transform(**config, mean=mean, std=std, use_prefetcher=True)
    border = mean if config["crop_mode"] == "border" else None  # what this mode fills the margin with
    mode = "L" if channels == 1 else "RGB"

    def pixels(image: Image.Image) -> Pixels:
        chw = np.asarray(transform(image.convert(mode)))
        return np.ascontiguousarray(chw.transpose(1, 2, 0))

    return Preprocess(digest("timm", config, border), pixels, mean, std)


def _for_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Constants for as many channels as there are; a grey network gets the mean of a colour network's, as in timm."""
    if len(values) == channels:
        return tuple(map(float, values))
    return (float(np.mean(values)),) * channels


def from_image_processor(processor: Any) -> Preprocess:
    """A transformers image processor; split in two where that gives the same pixels on a trial image."""
    settings = processor.to_dict()

    def whole(image: Image.Image) -> Pixels:
        return np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0], dtype=np.float32)

    def resized(image: Image.Image) -> Pixels:
        output = processor(images=image, do_rescale=False, do_normalize=False, return_tensors="np")
        return np.ascontiguousarray(output["pixel_values"][0].transpose(1, 2, 0))

    normalized = settings.get("do_normalize", False)
    mean, std = (settings.get("image_mean"), settings.get("image_std")) if normalized else ((0.0,) * 3, (1.0,) * 3)
    if isinstance(mean, list | tuple) and isinstance(std, list | tuple):
        stage_one = {k: v for k, v in settings.items() if k not in {"image_mean", "image_std", "do_normalize"}}
        split = Preprocess(digest("transformers", stage_one), resized, tuple(map(float, mean)), tuple(map(float, std)))
        if _same_input(split, whole):
            return split
    return Preprocess(digest("transformers, whole", settings), whole)


def from_callable(transform: Callable[[Image.Image], Any]) -> Preprocess:
    """Any function from an RGB image to a float tensor ``(channels, height, width)``."""

    def pixels(image: Image.Image) -> Pixels:
        made = transform(image)
        array = made.detach().float().cpu().numpy() if isinstance(made, Tensor) else made
        if not isinstance(array, np.ndarray) or array.ndim != 3:
            shape = f" of shape {tuple(array.shape)}" if isinstance(array, np.ndarray) else ""
            raise ValueError(f"it must return a tensor (channels, height, width), got {type(made).__name__}{shape}")
        return np.ascontiguousarray(array, dtype=np.float32)

    key = fingerprint(transform)
    if key is None:
        return Preprocess(digest("callable", id(transform)), pixels, cacheable=False)
    return Preprocess(digest("callable", key), pixels)


def _same_input(split: Preprocess, whole: Callable[[Image.Image], Pixels]) -> bool:
    """Whether two-stage preprocessing gives the processor's own result on a textured image."""
    texture = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    image = Image.fromarray(texture).resize((393, 291), Image.Resampling.BILINEAR)
    try:
        pixels = split.pixels(image)
    except Exception:  # processors without the switches reject them in their own ways
        return False
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        return False
    return np.allclose(split.batch(torch.from_numpy(pixels)[None])[0].numpy(), whole(image), atol=1e-5)
