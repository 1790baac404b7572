"""Rows by class, as the bootstrap and the jackknife need them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def numbered(labels: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the classes renumbered to 0..k-1, shape (n,), and their sizes, shape (k,)."""
    array = np.asarray(labels)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"`labels` must have shape (n,) with at least one row, got {array.shape}.")
    _, classes, sizes = np.unique(array, return_inverse=True, return_counts=True)
    return classes, sizes


def scale(sizes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return m / (m - 1), and 1 for a class of one, shape (k,)."""
    return sizes / np.maximum(sizes - 1, 1)


def shuffled_within(
    classes: NDArray[np.intp], sizes: NDArray[np.intp], seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows class by class, at random within, and each one's position in its class."""
    order = np.lexsort((np.random.default_rng([seed, 1]).random(len(classes)), classes))
    return order, np.arange(len(classes)) - (np.cumsum(sizes) - sizes)[classes[order]]
