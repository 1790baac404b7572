"""From what a person names to a candidate."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import nn

from hf_zoosel.zoo import hub, timm_models
from hf_zoosel.zoo.candidate import Candidate
from hf_zoosel.zoo.embedded import PREFIX as EMBEDDED_PREFIX, embedded_models, from_embedded
from hf_zoosel.zoo.errors import CandidateError
from hf_zoosel.zoo.folders import describe_folder, from_folder
from hf_zoosel.zoo.modules import from_module

Spec = str | Path | nn.Module | tuple[nn.Module, Any] | Candidate
_HUB_PREFIXES = ("hf-hub:", "hf_hub:")


def name_models(models: Sequence[Spec] | Mapping[str, Spec] | Spec | None) -> dict[str, Spec]:
    """Give every model the name it has in the ranking, before any of them is touched.

    Args:
        models: A list, or names mapped to models, or one model; the embedded zoo if None.

    Returns:
        Name to model, in the order given. Modules without a name get their class's, numbered.

    Raises:
        ValueError: If there are none, two have one name, or a name is empty.
        TypeError: If one is of no kind that can be ranked.

    Example:
        >>> list(name_models(["timm/resnet50.a1_in1k", nn.Linear(3, 2), nn.Linear(3, 2)]))
        ['timm/resnet50.a1_in1k', 'Linear', 'Linear-2']
    """
    if models is None:
        models = embedded_models()
        if not models:
            raise ValueError(
                "No `models` given and the embedded zoo is not installed. Run `pip install hf-zoosel[zoo]`."
            )
    pairs = list(models.items()) if isinstance(models, Mapping) else [(None, spec) for spec in _listed(models)]
    if not pairs:
        raise ValueError("`models` must hold at least one model, got none. Leave it out for the embedded zoo.")
    named: dict[str, Spec] = {}
    for given, spec in pairs:
        name = _name_of(spec, named) if given is None else str(given)
        _check_kind(name, spec)
        if not name.strip() or (isinstance(spec, str) and not spec.strip()):
            raise ValueError(
                f"`models` must hold non-empty names, got {name!r} for {shorten(repr(spec), 80)}. Remove it."
            )
        if name in named:
            raise ValueError(
                f"`models` must have distinct names, got {name!r} twice. Remove one, or name them: "
                "models={'name': model, ...}."
            )
        named[name] = spec
    return named


def resolve(spec: Spec, name: str) -> Candidate:
    """The candidate a person's words stand for, looked up but not loaded.

    Args:
        spec: A local folder; ``embedded:NAME``; a timm model name; a Hub id (``org/name``, ``hf-hub:org/name``,
            with ``@revision`` if wanted); a module; a module with its transform; or a ready candidate.
        name: Its name in the ranking.

    Raises:
        CandidateError: If it cannot be used, with the reason.
    """
    if isinstance(spec, Candidate):
        return spec.named(name)
    module = _module_of(spec)
    if module is not None:
        return from_module(module, spec[1] if isinstance(spec, tuple) else None, name)
    text = str(spec)
    if text.startswith("~"):
        text = str(Path(text).expanduser())
    if text.startswith(EMBEDDED_PREFIX):
        return from_embedded(text, name)
    if Path(text).is_dir():
        return from_folder(Path(text), name)
    if isinstance(spec, Path) or text.startswith((".", "/", "~")):
        raise CandidateError(f"there is no folder {text}. Check the path.")
    return _from_hub(text, name)


def _from_hub(text: str, name: str) -> Candidate:
    bare, _, revision = text.removeprefix(_HUB_PREFIXES[0]).removeprefix(_HUB_PREFIXES[1]).partition("@")
    repo_id = bare if "/" in bare else _timm_repository(bare)
    try:
        pinned = hub.pin(repo_id, revision or None)
    except hub.OutOfReachError as error:
        twin = EMBEDDED_PREFIX + repo_id.removeprefix("timm/").partition(".")[0]
        if twin in embedded_models():
            raise CandidateError(f"{error} Or use {twin!r}, which is installed.") from None
        raise
    candidate = describe_folder(pinned.folder, name, pinned.commit, fetch=pinned.fetch, beside=pinned.beside)
    return replace(candidate, origin=repo_id)


def _timm_repository(name: str) -> str:
    """A bare word stands for a timm model; anything else on the Hub has an owner."""
    repository = timm_models.repository_of(name)
    if repository is None:
        close = timm_models.close_names(name)
        raise CandidateError(
            f"{name!r} is no local folder and no timm model. "
            + (f"Did you mean {', '.join(close)}? " if close else "")
            + "A Hub model has an owner: org/name."
        )
    return repository


def _listed(models: Any) -> list[Spec]:
    """The models of an argument that is no mapping; one alone may stand without a list."""
    if isinstance(models, str | Path | nn.Module | Candidate) or _is_lone_pair(models):
        return [models]
    if not isinstance(models, Iterable):
        raise TypeError(
            f"`models` must be a list of models, or names mapped to models, got {type(models).__name__}. "
            "Put it into a list."
        )
    return list(models)


def _is_lone_pair(models: object) -> bool:
    """Whether a tuple is one model with its transform, rather than two models."""
    if not isinstance(models, tuple) or _module_of(models) is None:
        return False
    transform = models[1]
    if isinstance(transform, nn.Module):  # torchvision's transforms are modules too
        return type(transform).__module__.startswith("torchvision.transforms")
    return transform is None or callable(transform)


def _name_of(spec: object, taken: Mapping[str, object]) -> str:
    module = _module_of(spec)
    if module is not None:
        return _unused(type(module).__name__, taken)
    return spec.name if isinstance(spec, Candidate) else str(spec)


def _module_of(spec: object) -> nn.Module | None:
    if isinstance(spec, tuple) and len(spec) == 2 and isinstance(spec[0], nn.Module):
        return spec[0]
    return spec if isinstance(spec, nn.Module) else None


def _unused(name: str, taken: Mapping[str, object]) -> str:
    number = 1
    while (numbered := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return numbered


def _check_kind(name: str, spec: object) -> None:
    if not isinstance(spec, str | Path | Candidate) and _module_of(spec) is None:
        raise TypeError(
            f"`models` must hold names, folders, modules or (module, transform) pairs, got {type(spec).__name__} "
            f"for {shorten(name, 80)!r}."
        )
