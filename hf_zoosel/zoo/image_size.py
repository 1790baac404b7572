"""A candidate that sees images of another size."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hf_zoosel.zoo.candidate import Candidate
from hf_zoosel.zoo.errors import CandidateError
from hf_zoosel.zoo.image_processors import at_size
from hf_zoosel.zoo.preprocess import from_image_processor, from_timm


def is_image_processor(thing: object) -> bool:
    """Whether a preprocessing is a transformers image processor."""
    return hasattr(thing, "preprocess") and hasattr(thing, "to_dict")


def with_image_size(candidate: Candidate, image_size: int | tuple[int, int] | None) -> Candidate:
    """The candidate with its own preprocessing at another size, resized and cropped in the same proportion.

    The network stays: whether it takes images of that size shows when it runs.

    Args:
        candidate: Made from timm's data configuration or a transformers image processor.
        image_size: Side in pixels, or height and width; the candidate's own if None.

    Raises:
        CandidateError: If its preprocessing is a function of a person's own.
    """
    if image_size is None:
        return candidate
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    processor: Any = candidate.processor
    if isinstance(processor, Mapping):
        channels = next(iter(processor.get("input_size") or (3,)))
        sized = dict(processor) | {"input_size": (channels, height, width)}
        return replace(candidate, processor=sized, preprocess=from_timm(sized))
    if is_image_processor(processor):
        resized = at_size(processor, height, width)
        return replace(candidate, processor=resized, preprocess=from_image_processor(resized))
    raise CandidateError(
        f"{candidate.name} is prepared by a function of its own, which cannot be given {height} x {width} pixels. "
        "Pass it with a transform of that size."
    )
