"""Checks of arguments that the verbs share."""

import operator
from typing import overload


@overload
def whole_number(name: str, value: int, *, least: int = 1) -> int: ...
@overload
def whole_number(name: str, value: int | None, *, least: int = 1) -> int | None: ...
def whole_number(name: str, value: int | None, *, least: int = 1) -> int | None:
    """Check a count; NumPy integers are taken, bool is not."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}, got {value!r}. Leave it out if unsure."
        )
    return number
