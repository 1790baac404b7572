"""timm checkpoints: built strictly from their own configuration."""

import json
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hf_zoosel.zoo import class_names
from hf_zoosel.zoo.candidate import Candidate
from hf_zoosel.zoo.errors import CandidateError, one_line
from hf_zoosel.zoo.network import Network, Output, one_vector_each
from hf_zoosel.zoo.preprocess import from_timm
from hf_zoosel.zoo.weights import INDEX, weight_files


def from_config(
    folder: Path, name: str, revision: str, config: dict[str, Any], prepare: Callable[[], None]
) -> Candidate:
    """A folder in timm's layout (config.json with ``architecture``, model.safetensors).

    Raises:
        CandidateError: If timm does not know the architecture.
    """
    import timm

    architecture = config["architecture"]
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise CandidateError(
            f"timm {timm.__version__} has no architecture {architecture!r}. Upgrade timm, or check config.json."
        )
    wrapped = config.get("model_type") == "timm_wrapper"
    try:
        arguments = dict(config.get("model_args") or {})
        _check_arguments(arguments, config)
        data = config.get("pretrained_cfg") or (_default_config(architecture) if wrapped else config)
        preprocess = from_timm(data)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise CandidateError(f"its config.json cannot be used ({type(error).__name__}: {error}).") from None

    def load() -> Network:
        prepare()
        try:
            return watch(_from_wrapper(folder, config) if wrapped else _native(folder))
        except (RuntimeError, KeyError) as error:  # load_state_dict lists missing, unexpected and mismatched tensors
            raise CandidateError(f"weights do not fit {architecture}: {one_line(error)}") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise CandidateError(f"timm cannot build {architecture} from its config.json: {one_line(error)}") from None

    identity = json.dumps(["timm", architecture, config.get("model_args"), config.get("global_pool")], sort_keys=True)
    names = class_names.from_timm_config(config)
    return Candidate(name, revision, identity, preprocess, load, class_names=names, processor=data)


def _check_arguments(arguments: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuse what would make timm load part of the weights and draw the rest at random."""
    asked, trained = arguments.get("num_classes"), config.get("num_classes")
    if asked is not None and trained is not None and asked != trained:
        raise CandidateError(
            f"its config.json contradicts itself: model_args.num_classes is {asked}, num_classes is {trained}. "
            "Save it again with the number of classes of its head."
        )
    loose = sorted(key for key in arguments if key.startswith("pretrained") or key == "checkpoint_path")
    if loose:
        raise CandidateError(f"its config.json changes how weights are loaded (model_args: {', '.join(loose)}).")


def _native(folder: Path) -> nn.Module:
    import timm

    if not (folder / "model.safetensors").is_file():  # timm would go on to pickled weights beside the shards
        raise CandidateError(f"its weights are in shards ({INDEX}), which timm does not load. Save them in one file.")
    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def _from_wrapper(folder: Path, config: dict[str, Any]) -> nn.Module:
    """What transformers' TimmWrapper saved: timm's tensors under ``timm_model.``, the number of classes aside."""
    import timm
    from safetensors.torch import load_file

    files = [file for file in weight_files(folder) if file.name != INDEX]
    tensors = {key.removeprefix("timm_model."): tensor for file in files for key, tensor in load_file(file).items()}
    headless = "TimmWrapperModel" in (config.get("architectures") or [])
    arguments = dict(config.get("model_args") or {}) | {"num_classes": 0 if headless else config.get("num_classes")}
    module = timm.create_model(config["architecture"], **arguments)
    module.load_state_dict(tensors, strict=True)
    return module


def _default_config(architecture: str) -> dict[str, Any]:
    import timm

    config = timm.get_pretrained_cfg(architecture)
    return {} if config is None else config.to_dict()


def data_config(module: Any) -> dict[str, Any]:
    """A timm model's data configuration, with the channels and the fixed image size it was really built with."""
    config = dict(module.pretrained_cfg)
    channels, *size = config.get("input_size") or (3, 224, 224)
    if isinstance(config.get("first_conv"), str):
        channels = getattr(module.get_submodule(config["first_conv"]), "in_channels", channels)
    patches: Any = getattr(module, "patch_embed", None)
    if getattr(patches, "strict_img_size", False) and getattr(patches, "img_size", None) is not None:
        size = list(patches.img_size)
    return config | {"input_size": (channels, *size)}


def head_names_of(module: Any) -> tuple[str, ...] | None:
    """Names of the classes of a timm model's head, where it still has the head its configuration speaks of."""
    config = dict(module.pretrained_cfg)
    return class_names.from_timm_config(config) if config.get("num_classes") == module.num_classes else None


def watch(module: nn.Module) -> Network:
    """A timm model as a Network; timm's own split serves heads that end in something else than a linear layer."""
    if int(getattr(module, "num_classes", 0)) > 0:
        return Network(module, classifier="trained", fallback=_timm_split)
    return Network(module, _channels_first, classifier="none")


def repository_of(name: str) -> str | None:
    """The Hub repository of a timm model name, if timm knows the name.

    Raises:
        CandidateError: If timm knows it but has no pre-trained weights on the Hub for it.
    """
    import timm

    if not timm.is_model(name):
        return None
    architecture = name.partition(".")[0]
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag it does not have
        config = None
    if config is None or not config.hf_hub_id:
        there = ", ".join(timm.list_pretrained(f"{architecture}*")[:5])
        raise CandidateError(
            f"timm has no pre-trained weights on the Hub for {name!r}. "
            + (f"Choose one of those it has: {there}." if there else "Pass a folder, or another model.")
        )
    return str(config.hf_hub_id)


def close_names(name: str) -> list[str]:
    """Names of pre-trained timm models that look like a misspelt one."""
    import timm

    architecture, _, tag = name.partition(".")
    close = get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.7)
    return [f"{match}.{tag}" if tag and f"{match}.{tag}" in timm.list_pretrained(match) else match for match in close]


def _channels_first(module: Any, pixels: Tensor) -> Tensor:
    """Maps of a network without pooling as (n, d, h, w), also where it keeps channels last."""
    maps = module(pixels)
    last = maps.ndim == 4 and maps.shape[-1] == module.num_features != maps.shape[1]
    return maps.movedim(-1, 1) if last else maps


def _timm_split(module: Any, pixels: Tensor) -> Output:
    maps = module.forward_features(pixels)
    features = module.forward_head(maps, pre_logits=True)
    return Output(one_vector_each(features), module.forward_head(maps))
