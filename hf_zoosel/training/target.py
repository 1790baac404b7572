"""The target's rows: to train on, to validate on, and to test on."""

from dataclasses import replace
from numbers import Real
from typing import Any

from hf_zoosel.tasks.argument_names import said_of
from hf_zoosel.tasks.errors import NoLabelColumnError, NoLabelsError, NoRowsError, NoSplitError
from hf_zoosel.tasks.opening import DatasetLike, open_split
from hf_zoosel.tasks.splits import split_word
from hf_zoosel.training.materials import Columns
from hf_zoosel.training.streams import LabelledRows, open_held_out, open_target, split_validation

TEST = "test"  # the split that is measured on where there is one
_NOT_MEASURED = (
    "the model is not measured on test images: there is no test split with rows, and no data set was given as `test`"
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
    is_share = isinstance(validation, Real) and not isinstance(validation, bool)
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
    tested, note = _open_test(dataset, test, train, columns)
    train = replace(train, notes=(*train.notes, *note))
    if not is_share:
        return train, open_held_apart(dataset, validation, train, columns, what="validation"), tested
    kept, held_out = split_validation(train, float(validation), seed)
    return kept, held_out, tested


def _open_test(
    dataset: DatasetLike, test: Any, train: LabelledRows, columns: Columns
) -> tuple[LabelledRows | None, tuple[str, ...]]:
    """The rows to test on, or None and why there are none."""
    if isinstance(test, str) and test in _words(train.split):
        return None, ("the model is not measured: it was trained on the test split",)
    is_default = isinstance(test, str) and test == TEST
    try:
        return open_held_apart(dataset, test, train, columns, what="test"), ()
    except (NoLabelsError, NoLabelColumnError) as error:  # those of a benchmark are often kept back
        if isinstance(error, NoLabelColumnError) and not is_default:
            raise
        return None, ("the test split has no labels and was not used",)
    except (NoSplitError, NoRowsError):
        if not is_default:
            raise
        return None, (_NOT_MEASURED,)


def open_held_apart(
    dataset: Any, wanted: Any, train: LabelledRows, columns: Columns, *, what: str
) -> LabelledRows | None:
    """Rows to validate or test on: a split of the target by name, or a data set of its own.

    Args:
        dataset: The target.
        wanted: Name of a split; a data set of one split, or with one that is named as the argument; None for none.
        train: Gives the classes their numbers.
        columns: Of the target.
        what: The argument it was given by.

    Raises:
        NoLabelColumnError: If it has no column of labels.
        NoLabelsError: If no row of it has one.
        NoRowsError: If it has no rows.
        NoSplitError: If there is no such split.
        ValueError: If it cannot be opened, or has classes the target does not.
    """
    if wanted is None:
        return None
    named = {"image_column": columns.image, "label_column": columns.label}
    if not isinstance(wanted, str):
        with said_of({"dataset": what}):
            return open_held_out(wanted, train.class_names, **named, split=_split_of(wanted, what))
    if _is_one_split(dataset):
        raise NoSplitError(f"`{what}` must be a data set beside a target of one split, got {wanted!r}. Pass its rows.")
    try:
        with said_of({"split": what}):
            return open_held_out(dataset, train.class_names, **named, split=wanted)
    except NoSplitError:
        raise
    except ValueError as error:
        raise type(error)(f"{error} This is said of the split {wanted!r}; `{what}=None` leaves it out.") from error


def _split_of(given: Any, what: str) -> str | None:
    """Which split is meant of a data set that was given as ``test``, say: that of the name, or the only one."""
    if _is_one_split(given):
        return None
    try:
        open_split(given, what)
    except NoSplitError as error:
        there = error.available
        meant = [name for name in there if split_word(name) == what] or list(there)
        if len(meant) == 1:
            return meant[0]
        raise ValueError(
            f"`{what}` must be a data set of one split, or have one named {what!r}, got {', '.join(there)}. "
            "Pass the one that is meant."
        ) from None
    return what


def _is_one_split(dataset: Any) -> bool:
    from datasets import Dataset, IterableDataset

    return isinstance(dataset, Dataset | IterableDataset)


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
