"""Names of a head's classes, and which of them a data set's classes are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

_SYNSET = re.compile(r"n\d{8}")
_GENERATED = re.compile(r"LABEL_\d+")  # what transformers calls classes nobody has named
_BY_SIZE = {1000: "imagenet-1k", 11221: "imagenet-21k-miil", 11821: "imagenet-12k", 21841: "imagenet-22k"}


@dataclass(frozen=True)
class ClassMatch:
    """Which class of a head every class of a data set is.

    Attributes:
        indices: Class of the head, one for each class of the data set; None where there is not exactly one.
        missing: Names that no class of the head has.
        ambiguous: Names that several classes of the head have, or that share their class with another name.
    """

    indices: tuple[int | None, ...]
    missing: tuple[str, ...]
    ambiguous: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every class of the data set has a class of the head to itself."""
        return not self.missing and not self.ambiguous


def match_class_names(wanted: Sequence[str], head: Sequence[str]) -> list[int] | None:
    """The class of a head that each class of a data set is; None unless all of them are found.

    :func:`find_class_names` says which are not.

    Args:
        wanted: Names of the data set's classes.
        head: Names of the head's classes, in its order.

    Example:
        >>> match_class_names(["Great_White-Shark", "tench"], ["tench, Tinca tinca", "great white shark, white shark"])
        [1, 0]
        >>> match_class_names(["crane"], ["crane", "crane"]) is None
        True
    """
    found = find_class_names(wanted, head)
    return [index for index in found.indices if index is not None] if found.is_complete else None


def find_class_names(wanted: Sequence[str], head: Sequence[str]) -> ClassMatch:
    """Look for each class of a data set among the classes of a head.

    Case, underscores and hyphens do not count. A name is looked for as a whole first, then as a WordNet
    synset id, then among synonyms separated by commas. Where two lists of one length share a synonym at every
    place they are the same, whatever a name on its own might mean (ImageNet has two cranes).

    Args:
        wanted: Names of the data set's classes.
        head: Names of the head's classes, in its order.
    """
    wholes, ids, synonyms = _tables(head)
    shared = [_union(synonyms, _synonyms(name)) for name in wanted]
    if len(wanted) == len(head) and all(index in hits for index, hits in enumerate(shared)):
        return ClassMatch(tuple(range(len(head))), (), ())
    found = [
        wholes.get(_plain(name)) or ids.get(name.strip()) or hits for name, hits in zip(wanted, shared, strict=True)
    ]
    single = [next(iter(hits)) if len(hits) == 1 else None for hits in found]
    indices = tuple(None if single.count(index) > 1 else index for index in single)
    return ClassMatch(
        indices,
        tuple(name for name, hits in zip(wanted, found, strict=True) if not hits),
        tuple(name for name, hits, index in zip(wanted, found, indices, strict=True) if hits and index is None),
    )


def imagenet_names(n_classes: int) -> tuple[str, ...] | None:
    """Names of an ImageNet's classes in sorted synset order; None if no ImageNet has that many."""
    return _descriptions(_BY_SIZE[n_classes]) if n_classes in _BY_SIZE else None


def from_timm_config(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names in a timm configuration; those of ImageNet where it says that it was trained on it.

    Args:
        config: config.json, or a ``pretrained_cfg`` (what config.json holds under that key counts too).
    """
    inner = {**(config.get("pretrained_cfg") or {}), **config}
    n_classes, names = inner.get("num_classes"), inner.get("label_names")
    if not isinstance(n_classes, int) or n_classes < 1:
        return None
    if isinstance(names, dict):
        names = [names.get(key) for key in sorted(names, key=int)] if all(str(k).isdigit() for k in names) else None
    if isinstance(names, list | tuple) and len(names) == n_classes:
        described = inner.get("label_descriptions") or {}
        return _given(tuple(str(described.get(name, name)) for name in names))
    is_imagenet = n_classes != 1000 or "in1k" in str(inner.get("tag"))  # a thousand classes alone prove nothing
    return imagenet_names(n_classes) if is_imagenet and not names else None


def from_id2label(id2label: Mapping[int, str] | None) -> tuple[str, ...] | None:
    """Names in a transformers configuration; None where they are its own ``LABEL_0``, ``LABEL_1``, ..."""
    return _given(tuple(str(id2label[key]) for key in sorted(id2label))) if id2label else None


def _given(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Names a person gave."""
    return None if all(_GENERATED.fullmatch(name) for name in names) else names


def _tables(head: Sequence[str]) -> tuple[dict[str, set[int]], dict[str, set[int]], dict[str, set[int]]]:
    """Classes of a head by whole name, by synset id and by synonym."""
    wholes: dict[str, set[int]] = {}
    ids: dict[str, set[int]] = {}
    synonyms: dict[str, set[int]] = {}
    synsets = _synsets_of(tuple(head))
    for index, name in enumerate(head):
        described = _lemmas().get(name, name) if _SYNSET.fullmatch(name) else name
        wholes.setdefault(_plain(described), set()).add(index)
        if synsets is not None:
            ids.setdefault(synsets[index], set()).add(index)
        for synonym in _synonyms(described):
            synonyms.setdefault(synonym, set()).add(index)
    return wholes, ids, synonyms


def _synsets_of(head: tuple[str, ...]) -> Sequence[str] | None:
    """Synset ids of a head's classes, where they are an ImageNet's."""
    if all(_SYNSET.fullmatch(name) for name in head):
        return head
    if imagenet_names(len(head)) != head:
        return None
    return _info(_BY_SIZE[len(head)]).label_names()


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _synonyms(name: str) -> list[str]:
    return [_plain(part) for part in name.split(",") if part.strip()]


def _union(table: Mapping[str, set[int]], keys: Sequence[str]) -> set[int]:
    return set().union(*(table.get(key, set()) for key in keys))


@cache
def _info(subset: str) -> Any:
    from timm.data import ImageNetInfo

    return ImageNetInfo(subset)


@cache
def _descriptions(subset: str) -> tuple[str, ...]:
    return tuple(_info(subset).label_descriptions())


@cache
def _lemmas() -> Mapping[str, str]:
    """What every synset of the largest ImageNet is called."""
    return _info("imagenet-22k").label_descriptions(as_dict=True)
