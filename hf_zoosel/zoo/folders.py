"""A folder with config.json and safetensors: timm's own layout or transformers'."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hf_zoosel.zoo import source_stats, timm_models, transformers_models
from hf_zoosel.zoo.candidate import Candidate
from hf_zoosel.zoo.errors import CandidateError
from hf_zoosel.zoo.published import published_accuracy
from hf_zoosel.zoo.weights import check_weights, content_digest, weight_files

OF_A_MODULE = "hf_zoosel.json"  # in the place of config.json where the network is of neither library

logger = logging.getLogger(__name__)


def from_folder(folder: Path, name: str) -> Candidate:
    """A checkpoint on the local disk; its revision is the digest of its files.

    Raises:
        CandidateError: If it holds no config.json or no sound safetensors.
    """
    if (folder / OF_A_MODULE).is_file():
        raise CandidateError(
            f"{folder} holds the weights of a module that only your own code builds. Build it, load "
            "model.safetensors, and pass (module, transform)."
        )
    if not (folder / "config.json").is_file():
        raise CandidateError(f"{folder} holds no config.json, so it is no timm or transformers checkpoint.")
    revision = content_digest([folder / "config.json", *weight_files(folder)])

    def beside(file: str) -> Callable[[], Path] | None:
        return (lambda: folder / file) if (folder / file).is_file() else None

    return describe_folder(folder, name, revision, fetch=lambda: None, beside=beside)


def describe_folder(
    folder: Path,
    name: str,
    revision: str,
    *,
    fetch: Callable[[], None],
    beside: Callable[[str], Callable[[], Path] | None],
) -> Candidate:
    """The candidate a configuration describes.

    Args:
        folder: Holds config.json, and the weights once ``fetch`` has been called.
        name: Its name in the ranking.
        revision: The Hub commit or content digest.
        fetch: Brings the weights.
        beside: Gives what brings another file of the checkpoint; None where it has no such file.

    Raises:
        CandidateError: If config.json is unreadable or of neither library.
    """
    config = _read_json(folder / "config.json")

    def prepare() -> None:
        fetch()
        check_weights(folder)

    if "architecture" in config:  # timm's key; a timm network saved by transformers has it too
        candidate = timm_models.from_config(folder, name, revision, config, prepare)
    elif "model_type" in config:
        candidate = transformers_models.from_config(folder, name, revision, config, prepare)
    else:
        raise CandidateError(
            f"{folder / 'config.json'} names neither a timm `architecture` nor a transformers `model_type`."
        )
    card, stats = beside("README.md"), beside(source_stats.FILE_NAME)
    return replace(
        candidate,
        source_accuracy=None if card is None else _accuracy(card),
        source_stats=None if stats is None else partial(_statistics, stats),
    )


def _accuracy(card: Callable[[], Path]) -> float | None:
    try:
        return published_accuracy(card())
    except CandidateError as error:  # a card that cannot be had is no reason to do without the checkpoint
        logger.debug("%s", error)
        return None


def _statistics(file: Callable[[], Path]) -> source_stats.SourceStats:
    return source_stats.SourceStats.load(file())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CandidateError(f"{path} cannot be read as JSON ({error}). Download or save it again.") from None
    if not isinstance(content, dict):
        raise CandidateError(f"{path} must hold a JSON object, got {type(content).__name__}.")
    return content
