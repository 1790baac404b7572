"""Draw at most k rows of each class: those with the smallest random priority, one priority per row in row order.

A stream can draw the same numbers one by one, so it gives the same rows as the data set it streams; and the rows
drawn with a smaller k are among those drawn with a larger one.
"""

import heapq
from collections import defaultdict

import numpy as np

from hf_zoosel.tasks.labels import MISSING
from hf_zoosel.tasks.storage import Images, ListedImages


def draw_rows(codes: np.ndarray, max_per_class: int | None, seed: int) -> np.ndarray:
    """Draw rows of a labelled data set.

    Args:
        codes: Class of each row, shape ``(n_rows,)``, ``MISSING`` for rows never to be drawn.
        max_per_class: Rows to draw per class; None for all.
        seed: Seed of the priorities.

    Returns:
        Row numbers, int64, ascending.

    Example:
        >>> draw_rows(np.array([0, 0, 0, 1, -1]), 2, seed=0).tolist()
        [1, 2, 3]
    """
    labelled = np.flatnonzero(codes != MISSING)
    if max_per_class is None:
        return labelled
    priorities = np.random.default_rng(seed).random(len(codes))[labelled]
    order = np.lexsort((priorities, codes[labelled]))  # by class, then by priority
    sorted_codes = codes[labelled][order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_codes, sorted_codes)  # within its class
    return np.sort(labelled[order[rank < max_per_class]])


class Reservoir:
    """Draws the same rows as ``draw_rows`` from a stream and holds no more than them."""

    def __init__(self, max_per_class: int, seed: int) -> None:
        self._max_per_class = max_per_class
        self._rng = np.random.default_rng(seed)
        self._heaps: dict[int, list[tuple[float, int, object]]] = defaultdict(list)  # largest priority on top

    def offer(self, row: int, code: int, value: object) -> None:
        """Take the next row of the stream; rows without a label must be offered too."""
        entry = (-self._rng.random(), row, value)
        if code == MISSING:
            return
        heap = self._heaps[code]
        if len(heap) < self._max_per_class:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)

    def finish(self, mode: str | None) -> tuple[np.ndarray, np.ndarray, Images]:
        """Return row numbers, codes and images of the rows drawn, in row order."""
        kept = sorted((row, code, value) for code, heap in self._heaps.items() for _, row, value in heap)
        rows = np.array([row for row, _, _ in kept], dtype=np.int64)
        codes = np.array([code for _, code, _ in kept], dtype=np.int64)
        return rows, codes, ListedImages([value for _, _, value in kept], mode=mode)
