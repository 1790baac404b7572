"""transformers checkpoints, with or without an image-classification head."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_zoosel.zoo import class_names
from hf_zoosel.zoo.candidate import Candidate
from hf_zoosel.zoo.errors import CandidateError, one_line
from hf_zoosel.zoo.image_processors import processor_of
from hf_zoosel.zoo.network import Network, one_vector_each
from hf_zoosel.zoo.preprocess import from_image_processor


def from_config(
    folder: Path, name: str, revision: str, raw: Mapping[str, Any], prepare: Callable[[], None]
) -> Candidate:
    """A folder in transformers' layout (config.json with ``model_type``, safetensors).

    A checkpoint without a head is loaded into its image-classification class too, where there is one:
    what feeds that class's classifier is the feature vector fine-tuning would start from. Where there is
    none (masked auto-encoders, vision towers) the features are its pooled output, or the mean of its
    last hidden state.

    Args:
        folder: Holds config.json, and the weights once ``prepare`` has been called.
        name: Its name in the ranking.
        revision: The Hub commit or content digest.
        raw: What config.json holds.
        prepare: Brings and checks the weights.

    Raises:
        CandidateError: If transformers does not know the model type, cannot read its configuration, or it
            does not take images alone.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    if raw["model_type"] not in CONFIG_MAPPING and "auto_map" in raw:
        raise CandidateError(
            f"its model type {raw['model_type']!r} needs code from its own repository, which is not run. "
            "Load it where you trust it and pass (module, transform)."
        )
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            auto = _auto_class(config)
            processor, is_own = processor_of(folder, config)
            preprocess = from_image_processor(processor)
    except CandidateError:
        raise
    except Exception as error:  # configurations are checked by each model type in its own way
        raise CandidateError(f"transformers cannot use its configuration: {one_line(error)}") from None
    note = f"{name} has no preprocessor_config.json: {type(processor).__name__}'s defaults are used."

    def load() -> Network:
        prepare()
        return _load(folder, config, auto)

    identity = f"transformers {config.model_type} {(config.architectures or ['?'])[0]}"
    notes = () if is_own else (note,)
    names = class_names.from_id2label(config.id2label) if _has_trained_head(config) else None
    return Candidate(name, revision, identity, preprocess, load, notes, class_names=names, processor=processor)


def _has_trained_head(config: Any) -> bool:
    return "ForImageClassification" in (config.architectures or [""])[0]


def _auto_class(config: Any) -> Any:
    """The image classifier of a model type, or its bare model if that takes images and nothing else."""
    from transformers import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        MODEL_MAPPING,
        AutoModel,
        AutoModelForImageClassification,
    )

    if type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        return AutoModelForImageClassification
    if type(config) in MODEL_MAPPING:
        classes: Any = MODEL_MAPPING[type(config)]
        model_class = classes[0] if isinstance(classes, tuple) else classes
        if model_class.main_input_name == "pixel_values":
            return AutoModel
    raise CandidateError(
        f"transformers has no image classifier or image backbone for model type {config.model_type!r}."
    )


def _load(folder: Path, config: Any, auto: Any) -> Network:
    from transformers import AutoModel

    try:
        with quiet():
            module, report = auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported below, in one line
                output_loading_info=True,
            )
    except (RuntimeError, ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise CandidateError(f"transformers cannot load {config.model_type}: {one_line(error)}") from None
    trained_head = _has_trained_head(config)
    untrained = set() if trained_head else _head_of(module, config)
    faults = _faults(module, report, untrained)
    if faults:
        raise CandidateError(f"weights do not fit {config.model_type}: {faults}.")
    if auto is AutoModel:
        pooled = not any("pool" in key for key in report["missing_keys"])
        return Network(module, _pooled if pooled else _averaged, classifier="none")
    return Network(module, _logits, classifier="trained" if trained_head else "untrained")


def _head_of(module: Any, config: Any) -> set[str]:
    """Tensors that a checkpoint without a head cannot bring: the classifier's, or the bare model's pooler's."""
    base = f"{module.base_model_prefix}."
    heads = {
        f"{path}.{tensor}"
        for path, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features == config.num_labels and not path.startswith(base)
        for tensor, _ in layer.named_parameters()
    }
    is_bare = not hasattr(module, module.base_model_prefix)
    return heads | ({key for key, _ in module.named_parameters() if key.startswith("pool")} if is_bare else set())


def _faults(module: nn.Module, report: Mapping[str, Any], untrained: set[str]) -> str:
    """What of the weights is missing, of another shape, or more layers than the configuration has; or nothing."""
    mismatched = [f"{key} is {tuple(held)}, not {tuple(built)}" for key, held, built in report["mismatched_keys"]]
    missing = sorted(set(report["missing_keys"]) - untrained)
    kinds = {re.sub(r"\d+", "#", key) for key in module.state_dict()}
    extra = sorted(key for key in report["unexpected_keys"] if re.sub(r"\d+", "#", key) in kinds)
    if mismatched:
        return "; ".join(sorted(mismatched)[:3])
    if missing:
        return f"missing {', '.join(missing[:5])}"
    return f"config.json has no place for {', '.join(extra[:5])}" if extra else ""


def _logits(module: nn.Module, pixels: Tensor) -> Tensor:
    return module(pixel_values=pixels).logits


def _pooled(module: nn.Module, pixels: Tensor) -> Tensor:
    output = _hidden(module, pixels)
    pooled = getattr(output, "pooler_output", None)
    return one_vector_each(output.last_hidden_state if pooled is None else pooled)


def _averaged(module: nn.Module, pixels: Tensor) -> Tensor:
    return one_vector_each(_hidden(module, pixels).last_hidden_state)


def _hidden(module: Any, pixels: Tensor) -> Any:
    """A bare model's output; masked auto-encoders see every patch, in order, and draw nothing at random."""
    if "noise" not in inspect.signature(module.forward).parameters:
        return module(pixel_values=pixels)
    module.config.mask_ratio = 0.0
    order = torch.linspace(0, 1, module.embeddings.patch_embeddings.num_patches, device=pixels.device)
    return module(pixel_values=pixels, noise=order.expand(len(pixels), -1))


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' load report and progress bar: what matters of them becomes an error or a note."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging._tqdm_active
    logging.set_verbosity_error()
    logging._tqdm_active = False  # private, but disable_progress_bar() would switch the Hub's bars too
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging._tqdm_active = bars
