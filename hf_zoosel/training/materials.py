"""What a call of ``finetune`` works with: the checkpoint, the target's splits, the source, the recipe."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hf_zoosel.selection import SourceSelection
from hf_zoosel.tasks.argument_names import of_source, said_of
from hf_zoosel.tasks.opening import DatasetLike
from hf_zoosel.training.recipe import Recipe
from hf_zoosel.training.source_stream import open_source
from hf_zoosel.training.streams import LabelledRows, NoLabelsError, open_held_out, open_target, split_validation
from hf_zoosel.zoo import Candidate

TEST = "test"  # the split that is measured on where there is one
_NOT_MEASURED = "the model is not measured on test images: there is no test split, and no data set was given as `test`"


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
            self.candidate.revision,
            self.candidate.architecture,
            self.candidate.preprocess.identity,
            *(None if one is None else one.identity for one in rows),
            self.recipe.to_dict(),
        ]
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=12).hexdigest()

    def with_recipe(self, recipe: Recipe) -> "Materials":
        """The same data under another recipe."""
        return replace(self, recipe=recipe)


def open_held_apart(
    dataset: Any, wanted: Any, train: LabelledRows, columns: Columns, *, what: str, needed: bool = True
) -> LabelledRows | None:
    """Rows to validate or test on: a split of the target by name, or a data set of its own.

    Args:
        dataset: The target.
        wanted: Name of a split, a data set, or None for none.
        train: Gives the classes their numbers.
        columns: Of the target.
        what: The argument it was given by.
        needed: Whether a split that does not exist is an error.

    Raises:
        ValueError: If a needed split is not there, or has classes the target does not.
    """
    if wanted is None:
        return None
    by_name = isinstance(wanted, str)
    if by_name and not needed and not _has_split(dataset, wanted):
        return None
    with said_of({"split": what} if by_name else {"dataset": what}):
        return open_held_out(
            dataset if by_name else wanted,
            train.class_names,
            image_column=columns.image,
            label_column=columns.label,
            split=wanted if by_name else None,
        )


def open_target_rows(
    dataset: DatasetLike, columns: Columns, *, validation: Any, test: Any, max_per_class: int | None, seed: int
) -> tuple[LabelledRows, LabelledRows | None, LabelledRows | None]:
    """The target's rows to train on, to validate on and to test on.

    A test split without labels is left out, and so is one that is trained on.

    Raises:
        ValueError: If the target has one class, a held-out row has another class, or a split is to validate on that is
            trained or tested on.
    """
    is_share = isinstance(validation, int | float) and not isinstance(validation, bool)
    if isinstance(validation, bool) or (is_share and not 0 < validation < 1):
        raise ValueError(
            f"`validation` must be a share in (0, 1), a split's name, or None to hold out nothing, got {validation!r}."
        )
    train = open_target(
        dataset,
        image_column=columns.image,
        label_column=columns.label,
        split=columns.split,
        max_per_class=max_per_class,
        seed=seed,
    )
    if isinstance(validation, str):
        _check_apart(validation, train.split, test)
    if isinstance(test, str) and test in _words(train.split):
        test = None
        train = replace(train, notes=(*train.notes, "the model is not measured: it was trained on the test split"))
    try:
        is_default = isinstance(test, str) and test == TEST
        tested = open_held_apart(dataset, test, train, columns, what="test", needed=not is_default)
        if is_default and tested is None:
            train = replace(train, notes=(*train.notes, _NOT_MEASURED))
    except NoLabelsError:  # those of a benchmark are often kept back
        tested = None
        train = replace(train, notes=(*train.notes, "the test split has no labels and was not used"))
    if not is_share:
        return train, open_held_apart(dataset, validation, train, columns, what="validation"), tested
    kept, held_out = split_validation(train, float(validation), seed)
    return kept, held_out, tested


def _check_apart(validation: str, trained: str, test: Any) -> None:
    if validation in _words(trained):
        raise ValueError(
            f"`validation` must be another split than the one that is trained on, got {validation!r} for both. Name "
            "another one, or a share of the rows to hold out."
        )
    if isinstance(test, str) and validation == test:
        raise ValueError(
            f"`validation` must be another split than `test`, which is looked at once, got {validation!r} for both. "
            "Hold out a share of the training rows, or pass test=None."
        )


def _words(split: str) -> set[str]:
    """The splits an expression such as ``"train[:80%]+test"`` takes rows of."""
    return {part.partition("[")[0].strip() for part in split.split("+")}


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


def _has_split(dataset: Any, name: str) -> bool:
    from datasets import Dataset, IterableDataset

    from hf_zoosel.tasks.opening import open_split
    from hf_zoosel.tasks.splits import NoSplitError

    if isinstance(dataset, Dataset | IterableDataset):
        return False
    try:
        open_split(dataset, name)
    except NoSplitError:
        return False
    return True
