"""What a model card may say: what is known of a fine-tuned model."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hf_zoosel.hub.markdown import one_line
from hf_zoosel.ranking.mapping import FrozenMapping

Library = Literal["timm", "transformers"]
Unit = Literal["class", "cluster", "sample"]
_EMPTY: FrozenMapping[Any] = FrozenMapping()
_CHOSEN_BY = ("place", "scores")
_HUB_ID = re.compile(r"[\w-](?:[\w.-]*[\w-])?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class CardFacts:
    """What is known of a fine-tuned model; what is None or empty is left out of its card.

    Args:
        name: Name of the model; its Hub id where it has one, so that the card's code loads it from there.
        dataset: Name of the data set it was fine-tuned on.
        class_names: Its classes, in the order of its outputs.
        n_train: Images it was fine-tuned on.
        base_model: The checkpoint it began from: a Hub id, or another name.
        base_revision: Revision of that one.
        library_name: Library that builds it from the files; None for a module of a person's own.
        architecture: What the network is.
        dataset_id: Hub id of the data set; None if it has none, or none is known.
        test_split: Split of that data set that the test figures are of, if it is one of its own.
        test_dataset: Name of the data set that the test figures are of, if it is another one.
        chosen_by: How the base was chosen, if by a ranking: ``place`` in it, and ``scores``, metric -> value.
        source: Pre-training data that was mixed in.
        source_classes: Its classes that were.
        source_method: How they were chosen; the choice is in ``selection.json`` beside the card.
        source_unit: What was chosen of it.
        n_source: Its images that were.
        arguments: What ``finetune`` was given beside model, data, source and recipe.
        recipe: Every choice of the training, by name.
        method: How it was trained.
        metrics: Name -> value, such as ``test_accuracy`` or ``validation_accuracy``; accuracies in [0, 1].
        n_test: Images of the test figures.
        interval: 95 % interval of the accuracy on test, or on validation where there is none on test, in [0, 1].
        n_unreadable: Images that were left out because they could not be read.
        versions: Package -> version.
        seed: Of everything random.
        license: Hub's identifier of the licence.
        notes: What else a person should know, one sentence each.

    Raises:
        ValueError: If a name is empty, a number is not finite, or a Hub id is none.

    Example:
        >>> CardFacts("me/birds", "birds", ("crow", "owl"), metrics={"test_accuracy": 0.9}).base_on_hub is None
        True
    """

    name: str
    dataset: str
    class_names: tuple[str, ...]
    n_train: int | None = None
    base_model: str | None = None
    base_revision: str | None = None
    library_name: Library | None = None
    architecture: str | None = None
    dataset_id: str | None = None
    test_split: str | None = None
    test_dataset: str | None = None
    chosen_by: Mapping[str, Any] | None = None
    source: str | None = None
    source_classes: tuple[str, ...] = ()
    source_method: str | None = None
    source_unit: Unit | None = None
    n_source: int | None = None
    arguments: Mapping[str, Any] = _EMPTY
    recipe: Mapping[str, Any] = _EMPTY
    method: str | None = None
    metrics: Mapping[str, float] = _EMPTY
    n_test: int | None = None
    interval: tuple[float, float] | None = None
    n_unreadable: int = 0
    versions: Mapping[str, str] = _EMPTY
    seed: int | None = None
    license: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("class_names", "source_classes", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("recipe", "metrics", "versions", "chosen_by", "arguments"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, FrozenMapping(getattr(self, name)))
        _check(self)

    @property
    def base_on_hub(self) -> str | None:
        """The base's Hub id; None if it is no model of the Hub.

        A local folder can look like one, ``runs/first``, but its revision is no commit.
        """
        known = self.base_revision is None or COMMIT.fullmatch(self.base_revision)
        return self.base_model if known and is_hub_id(self.base_model, owned=True) else None


def is_hub_id(text: str | None, *, owned: bool = False) -> bool:
    """Whether the Hub could have a repository of this name; ``owned``: one with an owner, ``owner/name``.

    Example:
        >>> is_hub_id("timm/resnet18.a1_in1k", owned=True), is_hub_id("../data"), is_hub_id("/data/x")
        (True, False, False)
    """
    parts = [] if text is None else text.split("/")
    if len(parts) not in ((2,) if owned else (1, 2)) or "--" in (text or "") or ".." in (text or ""):
        return False
    return all(_HUB_ID.fullmatch(part) for part in parts) and not parts[-1].endswith(".git")


def _check(facts: CardFacts) -> None:
    for name in ("name", "dataset", "base_model", "source", "test_dataset"):
        if getattr(facts, name) is not None and not one_line(getattr(facts, name)):
            raise ValueError(f"`{name}` must not be empty, got {getattr(facts, name)!r}. Name it.")
    if not facts.class_names:
        raise ValueError("`class_names` must hold the classes, got none. Name them.")
    if facts.library_name not in (None, "timm", "transformers"):
        raise ValueError(f"`library_name` must be 'timm', 'transformers' or None, got {facts.library_name!r}.")
    if facts.dataset_id is not None and not is_hub_id(facts.dataset_id):
        raise ValueError(f"`dataset_id` must be a Hub id, got {facts.dataset_id!r}. Leave it out for local data.")
    unknown = sorted(set(facts.chosen_by or ()).difference(_CHOSEN_BY))
    if unknown:
        raise ValueError(f"`chosen_by` must hold some of {list(_CHOSEN_BY)}, got {unknown}. Leave them out.")
    for name, value in facts.metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"`metrics` must be finite, got {value} for {name!r}. Leave it out.")
    if facts.interval is not None and not 0 <= facts.interval[0] <= facts.interval[1] <= 1:
        raise ValueError(f"`interval` must be two shares in order, got {facts.interval}. Leave it out if unknown.")
