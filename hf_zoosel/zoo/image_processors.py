"""The image processor of a transformers checkpoint."""

from pathlib import Path
from typing import Any

from hf_zoosel.zoo.errors import CandidateError

_FILES = ("preprocessor_config.json", "processor_config.json")


def processor_of(folder: Path, config: Any) -> tuple[Any, bool]:
    """The checkpoint's own image processor, or its model type's default at its image size.

    Args:
        folder: The checkpoint.
        config: Its transformers configuration.

    Returns:
        The processor, and whether it is the checkpoint's own.

    Raises:
        CandidateError: If there is neither.
    """
    from transformers import IMAGE_PROCESSOR_MAPPING, AutoImageProcessor

    if any((folder / name).is_file() for name in _FILES):
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True), True
    if type(config) not in IMAGE_PROCESSOR_MAPPING:
        raise CandidateError("it has no preprocessor_config.json. Save its image processor beside the weights.")
    classes: Any = IMAGE_PROCESSOR_MAPPING[type(config)]
    processor_class = next(c for c in (classes.get("torchvision"), classes.get("pil")) if c is not None)
    return processor_class(**_sizes(processor_class().to_dict(), _image_size(config))), False


def at_size(processor: Any, height: int, width: int) -> Any:
    """An image processor for another size, in its own proportion of resize to crop."""
    settings = processor.to_dict()
    return type(processor).from_dict(settings | _sizes(settings, (height, width)))


def _image_size(config: Any) -> tuple[int, int] | None:
    """Height and width a configuration was built for."""
    size = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) and len(size) == 2 else None


def _sizes(defaults: dict[str, Any], image_size: tuple[int, int] | None) -> dict[str, Any]:
    """A processor's size arguments for another image size, in its own proportion of resize to crop."""
    size, crop = dict(defaults.get("size") or {}), dict(defaults.get("crop_size") or {})
    if image_size is None or not size:
        return {}
    height, width = image_size
    if not (defaults.get("do_center_crop") and crop.get("height")):
        return {"size": _edges(size, height, width)}
    grow = next(value for value in size.values() if value) / crop["height"]
    return {
        "size": _edges(size, round(height * grow), round(width * grow)),
        "crop_size": {"height": height, "width": width},
    }


def _edges(size: dict[str, Any], height: int, width: int) -> dict[str, int]:
    if "height" in size:
        return {"height": height, "width": width}
    return {"shortest_edge": min(height, width)}
