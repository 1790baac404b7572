"""A network that is already in memory, with its transform."""

import hashlib
import uuid
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hf_zoosel.zoo import timm_models
from hf_zoosel.zoo.candidate import Candidate
from hf_zoosel.zoo.class_names import from_id2label
from hf_zoosel.zoo.errors import CandidateError, one_line
from hf_zoosel.zoo.fingerprint import fingerprint
from hf_zoosel.zoo.image_size import is_image_processor
from hf_zoosel.zoo.network import Network
from hf_zoosel.zoo.preprocess import Preprocess, from_callable, from_image_processor, from_timm

_CLASSIFIER = "ForImageClassification"
_COUNTED_ELSEWHERE = ("_parameters", "_buffers", "_modules")
_NO_PART_OF_IT = ("training", "_is_torch_compile")  # torch.compile leaves its mark on the module it wraps


def from_module(module: nn.Module, transform: Any, name: str) -> Candidate:
    """A module as a candidate. The module itself is never changed: a copy is moved and run.

    Args:
        module: Takes ``(n, 3, height, width)`` and returns logits or features (a tensor, or an output
            with ``logits``). A final linear layer is taken to be its classifier.
        transform: From an RGB ``PIL.Image`` to a float tensor ``(3, height, width)``, or a transformers
            image processor, or None for a timm model, which knows its own.
        name: Its name in the ranking.

    Raises:
        CandidateError: If there is no transform and the module does not bring one, or it holds no data.
    """
    module = _unwrapped(module)
    is_timm = hasattr(module, "pretrained_cfg") and hasattr(module, "forward_head")
    if transform is None and not is_timm:
        raise CandidateError(
            f"{type(module).__name__} does not say how images are prepared for it. "
            "Pass it with its transform: (module, transform)."
        )
    if transform is not None and not callable(transform):
        raise CandidateError(f"its transform must be callable, got {type(transform).__name__}.")

    def load() -> Network:
        copy = _copied(module)
        if is_timm:
            return timm_models.watch(copy)
        of_a_library = hasattr(module, "config")  # transformers' code takes either memory format
        return Network(copy, _first_tensor if of_a_library else _own, channels_last=of_a_library)

    processor = timm_models.data_config(module) if transform is None else transform
    preprocess = from_timm(processor) if transform is None else _from_transform(transform)
    kind, names = type(module).__qualname__, _names(module, is_timm)
    whole, body = _digests(module, _of_its_classifier(module, is_timm))
    own: dict[str, Any] = {"class_names": names, "processor": processor, "body_revision": body}
    return Candidate(name, whole, kind, preprocess, load, **own)


def _names(module: Any, is_timm: bool) -> tuple[str, ...] | None:
    if is_timm:
        return timm_models.head_names_of(module)
    is_classifier = type(module).__name__.endswith(_CLASSIFIER)  # a bare model has names, but no head
    names = from_id2label(module.config.id2label) if is_classifier and hasattr(module, "config") else None
    if names is None or not isinstance(head := getattr(module, "classifier", None), nn.Module):
        return names
    widths = [layer.out_features for layer in head.modules() if isinstance(layer, nn.Linear)]
    return None if widths and widths[-1] != len(names) else names  # a head put there by hand


def _from_transform(transform: Callable[..., Any]) -> Preprocess:
    return from_image_processor(transform) if is_image_processor(transform) else from_callable(transform)


def _own(module: nn.Module, pixels: Tensor) -> Tensor:
    return _first_tensor(module, pixels.contiguous())


def _first_tensor(module: nn.Module, pixels: Tensor) -> Tensor:
    output = module(pixels)
    if isinstance(output, Tensor):
        return output
    for field in ("logits", "pooler_output", "last_hidden_state"):
        value = output.get(field) if isinstance(output, Mapping) else getattr(output, field, None)
        if isinstance(value, Tensor):
            return value
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        if len({one.shape for one in output if isinstance(one, Tensor) and one.ndim == 4}) > 1:
            raise CandidateError(f"its output must be one vector an image, got {len(output)} feature maps.")
        return output[0]
    raise CandidateError(f"its output must be a tensor or have `logits`, got {type(output).__name__}.")


def _unwrapped(module: nn.Module) -> nn.Module:
    """The network inside torch.compile, DataParallel or DistributedDataParallel."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _unwrapped(module.module)
    compiled = getattr(module, "_orig_mod", None)  # torch.compile's; there is no public way back
    return module if compiled is None else _unwrapped(compiled)


def _copied(module: nn.Module) -> nn.Module:
    try:
        return deepcopy(module).cpu().float()
    except Exception as error:  # whatever a person's module keeps in its attributes
        raise CandidateError(
            f"it cannot be copied ({type(error).__name__}: {one_line(error)}). "
            "Detach the tensors and drop the handles it keeps as attributes."
        ) from None


def _of_its_classifier(module: Any, is_timm: bool) -> set[str]:
    """Names of the tensors of the last layers of a model of a library, as that names them; empty if it does not."""
    paths: Any = ()
    if is_timm:
        paths = module.pretrained_cfg.get("classifier") or ()
    elif type(module).__module__.startswith("transformers.") and type(module).__name__.endswith(_CLASSIFIER):
        found = [name for name, _ in module.named_children() if name.endswith("classifier")]
        paths = found if len(found) == 1 else ()
    tensors = set()
    for path in [paths] if isinstance(paths, str) else paths:
        layers = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        last = [name for name in layers if name == path or name.startswith(f"{path}.")][-1:]
        tensors |= {f"{layer}.{name}" for layer in last for name, _ in module.get_submodule(layer).named_parameters()}
    return tensors


def _digests(module: nn.Module, classifier: Collection[str]) -> tuple[str, str | None]:
    """What a module is: its structure, every tensor in it, its other attributes, and the code of its classes.

    A module with an attribute that cannot be pickled gets digests of its own on every call.

    Returns:
        The digest of all of it, and the one without the values of the classifier's tensors, if it has any.
    """
    whole, body = hashlib.sha256(repr(module).encode()), hashlib.sha256(repr(module).encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_meta or is_lazy(tensor):
            where = "on the meta device, without data" if tensor.is_meta else "lazy, and was never run"
            raise CandidateError(f"{name} is {where}. Load the weights first.")
        about = f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        whole.update(about)
        whole.update(values)
        body.update(about)
        if name not in classifier:
            body.update(values)
    rest = [(path, type(layer), _attributes(layer)) for path, layer in module.named_modules()]
    what = (fingerprint(rest) or uuid.uuid4().hex).encode()
    whole.update(what)
    body.update(what)
    return _named(whole), _named(body) if classifier else None


def _named(hasher: Any) -> str:
    return f"sha256:{hasher.hexdigest()[:16]}"


def _attributes(layer: nn.Module) -> dict[str, Any]:
    """What a layer holds beside tensors and layers: numbers, functions, hooks."""
    passed_over = {*_COUNTED_ELSEWHERE, *_NO_PART_OF_IT}
    return {key: value for key, value in vars(layer).items() if key not in passed_over and not _is_empty(value)}


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, dict | set) and not value)
