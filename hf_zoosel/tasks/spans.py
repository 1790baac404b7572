"""Which rows are done and which are left, as spans of row numbers."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence


def joined(spans: Iterable[range]) -> list[range]:
    """The same rows in as few spans as there can be, ascending.

    Example:
        >>> joined([range(4, 6), range(0, 2), range(2, 4), range(8, 9)])
        [range(0, 6), range(8, 9)]
    """
    found: list[range] = []
    for span in sorted((span for span in spans if span), key=lambda span: span.start):
        if found and span.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, span.stop))
        else:
            found.append(span)
    return found


def pieces(done: Sequence[range], size: int, n_rows: int | None) -> Iterator[range]:
    """What is left to do, in pieces of at most ``size`` rows, ascending; without end where ``n_rows`` is None.

    Example:
        >>> list(pieces([range(2, 5)], 4, 12))
        [range(0, 2), range(5, 9), range(9, 12)]
    """
    start = 0
    for span in joined(done):
        yield from _cut(start, span.start, size)
        start = span.stop
    if n_rows is not None:
        yield from _cut(start, n_rows, size)
        return
    while True:
        yield range(start, start + size)
        start += size


def n_in(spans: Iterable[range]) -> int:
    """How many rows there are in spans that do not overlap."""
    return sum(map(len, spans))


def disjoint(candidates: Iterable[tuple[str, Sequence[range]]]) -> dict[str, Sequence[range]]:
    """Of named lists of spans those to be taken together: the larger first, none that shares a row with one taken.

    Example:
        >>> disjoint([("part", [range(2)]), ("all of it", [range(4)]), ("more", [range(4, 6)])])
        {'all of it': [range(0, 4)], 'more': [range(4, 6)]}
    """
    taken: dict[str, Sequence[range]] = {}
    covered: list[tuple[int, int]] = []  # of the taken, ascending
    for name, spans in sorted(candidates, key=lambda one: (-n_in(one[1]), one[0])):
        if any(_overlaps(span, covered) for span in spans):
            continue
        taken[name] = spans
        for span in spans:
            insort(covered, (span.start, span.stop))
    return taken


def _overlaps(span: range, covered: Sequence[tuple[int, int]]) -> bool:
    after = bisect_left(covered, (span.stop, 0))  # the first that starts no earlier than this one ends
    return after > 0 and covered[after - 1][1] > span.start


def _cut(start: int, stop: int, size: int) -> Iterator[range]:
    for first in range(start, stop, size):
        yield range(first, min(first + size, stop))
