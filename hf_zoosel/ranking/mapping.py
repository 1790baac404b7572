"""A read-only mapping that, unlike ``types.MappingProxyType``, can be pickled, copied and hashed."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

Value = TypeVar("Value")


class FrozenMapping(Mapping[str, Value]):
    """A mapping from names to values that keeps its order and never changes.

    Example:
        >>> a = FrozenMapping({"lfc": 0.5})
        >>> a["lfc"], a == {"lfc": 0.5}
        (0.5, True)
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Value] | None = None) -> None:
        self._items: dict[str, Value] = dict(items or {})

    def __getitem__(self, name: str) -> Value:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)
