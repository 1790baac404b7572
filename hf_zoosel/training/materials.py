"""What a call of ``finetune`` works with: the checkpoint, the target's rows, the source, the recipe."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hf_zoosel.selection import SourceSelection
from hf_zoosel.tasks.argument_names import of_source, said_of
from hf_zoosel.training.build import keeps_head
from hf_zoosel.training.recipe import Recipe
from hf_zoosel.training.source_stream import open_source
from hf_zoosel.training.streams import LabelledRows
from hf_zoosel.zoo import Candidate


@dataclass(frozen=True)
class Columns:
    """Where a data set has its images and labels; what is None is found."""

    image: str | None = None
    label: str | None = None
    split: str | None = None

    def as_arguments(self, prefix: str = "") -> dict[str, str | None]:
        """As ``finetune`` is given them."""
        return {f"{prefix}image_column": self.image, f"{prefix}label_column": self.label, f"{prefix}split": self.split}


@dataclass(frozen=True)
class Materials:
    """Everything a run is made from.

    Attributes:
        candidate: The checkpoint.
        recipe: Every choice.
        train: Target rows to train on.
        validation: Target rows held out; None for none.
        test: Rows to measure the finished model on, once; None for none.
        source: Rows to train with beside the target; None for none.
        selection: How the source was chosen, if it was.
        dataset_id: Hub id of the target; None if it was not given by its id.
        test_is_apart: Whether the test rows are of another data set than the target.
        chosen_by: How the checkpoint was chosen, if by a ranking.
        arguments: What of the call is neither model, data nor recipe.
        notes: What a person should know.
    """

    candidate: Candidate
    recipe: Recipe
    train: LabelledRows
    validation: LabelledRows | None = None
    test: LabelledRows | None = None
    source: LabelledRows | None = None
    selection: SourceSelection | None = None
    dataset_id: str | None = None
    test_is_apart: bool = False
    chosen_by: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """Digest of all of it: the same materials and recipe end in the same weights."""
        rows = (self.train, self.validation, self.test, self.source)
        parts = [
            self.weights_revision,
            self.candidate.architecture,
            self.candidate.preprocess.identity,
            *(None if one is None else one.identity for one in rows),
            self.recipe.to_dict(),
        ]
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=12).hexdigest()

    @property
    def weights_revision(self) -> str:
        """What of the checkpoint's weights is trained: without its classifier, where that is replaced and known."""
        if self.candidate.body_revision is None or keeps_head(self.candidate, self.recipe, self.source):
            return self.candidate.revision
        return self.candidate.body_revision

    def with_recipe(self, recipe: Recipe) -> "Materials":
        """The same data under another recipe."""
        return replace(self, recipe=recipe)


def open_source_rows(
    source: Any, columns: Columns, recipe: Recipe, *, data: Any = None
) -> tuple[LabelledRows | None, SourceSelection | None]:
    """The rows to train with beside the target, and the selection they come from.

    Raises:
        ValueError: If they cannot be opened, or the selection was made from other data.
    """
    if source is None:
        return None, None
    if recipe.source_sampling == "mass" and not isinstance(source, SourceSelection):
        raise ValueError("`source_sampling` must be 'uniform' for a data set, which has no masses. Pass a selection.")
    with said_of(of_source(data="source_data", **({} if data is None else {"dataset": "source_data"}))):
        rows = open_source(
            source,
            data=data,
            image_column=columns.image,
            label_column=columns.label,
            split=columns.split,
            labelled=False if recipe.method == "consistency" else None,
            weighted=recipe.source_sampling == "mass",
            seed=recipe.seed,
        )
    return rows, source if isinstance(source, SourceSelection) else None


def fitting_method(recipe: Recipe, source: LabelledRows | None, *, guess: bool) -> Recipe:
    """The recipe with a method that the source allows.

    Args:
        recipe: What was asked for.
        source: What there is.
        guess: Whether the method was left open.

    Raises:
        ValueError: If the method needs a source, or labels, that are not there.
    """
    if guess:
        if source is None:
            return recipe.changed(method="plain")
        return recipe.changed(method="consistency" if source.labels is None else "joint")
    if source is None and recipe.method in ("joint", "consistency"):
        raise ValueError(f"`source` must be given for method={recipe.method!r}, got None. Select one, or train plain.")
    if source is not None and recipe.method == "plain":
        raise ValueError("`method` must be 'joint' or another that takes a source, got 'plain' and a `source`.")
    if source is not None and source.labels is None and recipe.method in ("joint", "co-tuning"):
        raise ValueError(
            f"`source` must have labels for method={recipe.method!r}, got none in {source.name!r}. "
            "Name the column (`source_label_column=`), or take method='consistency'."
        )
    return recipe
