"""Errors of opening a data set, said of the arguments it was given by."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def said_of(names: Mapping[str, str]) -> Iterator[None]:
    """Say of other arguments what is raised of these.

    Args:
        names: Argument an error is about -> the one the caller was given.

    Example:
        >>> with said_of({"dataset": "source"}):
        ...     raise ValueError("`dataset` must be an existing path.")
        Traceback (most recent call last):
        ValueError: `source` must be an existing path.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        said = error.args[0] if error.args else None
        if isinstance(said, str):
            named = re.compile("`(" + "|".join(map(re.escape, names)) + r")\b")
            error.args = (named.sub(lambda found: f"`{names[found[1]]}", said), *error.args[1:])
        raise


def of_source(**names: str) -> Mapping[str, str]:
    """Names for ``said_of``: a source's columns and split; ``names`` beside them."""
    own = {name: f"source_{name}" for name in ("image_column", "label_column", "split")}
    return {"dataset": "source", **own, **names}
