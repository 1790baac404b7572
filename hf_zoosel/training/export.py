"""A fine-tuned model as a folder that timm, transformers and ``rank_models`` load unchanged."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_zoosel.training.architecture import is_timm, is_transformers
from hf_zoosel.training.model import TwoHeads
from hf_zoosel.zoo import Candidate
from hf_zoosel.zoo.atomic import filling
from hf_zoosel.zoo.folders import OF_A_MODULE
from hf_zoosel.zoo.image_size import is_image_processor
from hf_zoosel.zoo.timm_models import data_config
from hf_zoosel.zoo.transformers_models import quiet

WEIGHTS = "model.safetensors"
SOURCE_HEAD = "source_head.safetensors"
# What of a pre-trained configuration holds for fine-tuned weights too; the rest says where the old ones came from.
_DATA_KEYS = ("input_size", "fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
_MODEL_KEYS = ("first_conv", "classifier")
_RUNTIME = ("num_classes", "drop_rate", "drop_path_rate", "drop_block_rate")  # no part of the architecture


def save_model(
    model: TwoHeads,
    candidate: Candidate,
    folder: str | Path,
    *,
    class_names: Sequence[str],
    keep_head: bool = False,
) -> Path:
    """Write a model with its target head, the names of its classes and its preprocessing.

    A timm model loads with ``timm.create_model("local-dir:FOLDER", pretrained=True)``, a timm or transformers model
    with ``AutoModelForImageClassification`` and ``pipeline("image-classification", FOLDER)``. Of any other module
    the tensors are written, and ``hf_zoosel.json``, which names it and its classes.

    Args:
        model: The fine-tuned model.
        candidate: What it was made from, with the preprocessing it was trained with, the image size included.
        folder: Where to write. Files of the same names are replaced, all at once.
        class_names: Names of the target's classes.
        keep_head: Also write the source heads, to ``source_head.safetensors``.

    Returns:
        The folder.

    Raises:
        ValueError: If the names are not one a class, or ``keep_head`` is asked of a model without source head.
        OSError: If it cannot be written; what was there stays.

    Warns:
        UserWarning: If the preprocessing is a function, which cannot be written, or timm cannot rebuild the model
            from its own description.
    """
    if len(class_names) != model.n_target:
        raise ValueError(
            f"`class_names` must name each of the {model.n_target} classes, got {len(class_names)} names."
        )
    source_head = model.source_head_tensors()
    if keep_head and not source_head:
        raise ValueError("`keep_head` must be False for a model without a source head, got True. Leave it out.")
    folder, names, module = Path(folder), [str(name) for name in class_names], model.plain().cpu()
    with filling(folder) as temporary:
        _write(module, candidate, temporary, names)
        if keep_head:
            known = {} if candidate.class_names is None else {"class_names": json.dumps(candidate.class_names)}
            _save_tensors(source_head, temporary / SOURCE_HEAD, known)
    return folder


def _write(module: nn.Module, candidate: Candidate, folder: Path, names: list[str]) -> None:
    processor = candidate.processor
    timm_config = _timm_config(module, candidate, names) if is_timm(module) else None
    is_saved = is_image_processor(processor) if timm_config is None else isinstance(processor, Mapping)
    if timm_config is not None:
        _save_tensors(module.state_dict(), folder / WEIGHTS)
        _write_json(timm_config, folder / "config.json")
    elif is_transformers(module):
        _save_transformers(module, folder, names)
    else:
        _save_other(module, folder, names)
    if not is_saved:
        warnings.warn(
            f"the preprocessing of {candidate.name} is no configuration that can be written beside the weights. "
            "Prepare images for the saved model as they were for training.",
            stacklevel=3,
        )
    elif timm_config is None:
        processor.save_pretrained(folder)


def _timm_config(module: Any, candidate: Candidate, names: list[str]) -> dict[str, Any] | None:
    """What timm's own export writes, so that it is read by transformers too; None if it does not lead back."""
    own = data_config(module)
    config = {key: own[key] for key in (*_DATA_KEYS, *_MODEL_KEYS) if key in own}
    if isinstance(candidate.processor, Mapping):
        config |= {key: candidate.processor[key] for key in _DATA_KEYS if candidate.processor.get(key) is not None}
        config |= {"mean": candidate.preprocess.mean, "std": candidate.preprocess.std}  # for as many channels
        config["input_size"] = (own["input_size"][0], *config["input_size"][1:])
    arguments = {key: value for key, value in getattr(module, "_model_args", {}).items() if key not in _RUNTIME}
    if not _leads_back(module, own["architecture"], arguments):
        warnings.warn(
            f"timm does not rebuild this {own['architecture']} from its name and arguments. Its tensors are saved.",
            stacklevel=4,
        )
        return None
    return {
        "architecture": own["architecture"],
        "num_classes": len(names),
        "num_features": module.num_features,
        "label_names": names,
        **({"model_args": arguments} if arguments else {}),  # without num_classes, which transformers gives too
        "pretrained_cfg": {**config, "num_classes": len(names), "custom_load": False},
    }


def _leads_back(module: Any, architecture: str, arguments: Mapping[str, Any]) -> bool:
    """Whether timm builds a module with the same tensors from what config.json will say."""
    import timm

    try:
        with torch.random.fork_rng(devices=[]):
            built = timm.create_model(
                architecture, num_classes=module.num_classes, **json.loads(json.dumps(arguments))
            )
    except Exception:  # each architecture checks its arguments in its own way
        return False
    return _shapes(built) == _shapes(module)


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _save_transformers(module: Any, folder: Path, names: list[str]) -> None:
    module.config.id2label = dict(enumerate(names))
    module.config.label2id = {name: index for index, name in enumerate(names)}
    with quiet():
        module.save_pretrained(folder)


def _save_other(module: nn.Module, folder: Path, names: list[str]) -> None:
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    _save_tensors(module.state_dict(), folder / WEIGHTS)
    _write_json({"module": kind, "class_names": names, "weights": WEIGHTS}, folder / OF_A_MODULE)


def _save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """As safetensors; tensors that share memory are written each for itself."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    apart = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    path.touch()
    mode = path.stat().st_mode  # as every file's; safetensors would have it read by its owner alone
    try:
        save_file(apart, path, {"format": "pt", **(metadata or {})})
        path.chmod(mode)
    except SafetensorError as error:
        raise OSError(f"the weights {path} cannot be written ({error}). Make room, and run again to go on.") from error


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
