"""What a split of a data set can lack; where it was not asked for, it is left out then."""

from collections.abc import Sequence


class NoSplitError(ValueError):
    """A data set has no split of a name.

    Args:
        message: What to say.
        available: Names of its splits, where they are known.
    """

    def __init__(self, message: str, available: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.available = tuple(available)


class NoLabelColumnError(ValueError):
    """A data set has no column of labels, or no class folders."""


class NoLabelsError(ValueError):
    """No row of a split has a label."""


class NoRowsError(ValueError):
    """A split has no rows."""
