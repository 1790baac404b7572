"""Where every random number of a run comes from: its seed, what it is for, and an index, never a state."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What numbers are drawn for; no two share any."""

    TARGET_ORDER = 0
    SOURCE_ORDER = 1
    SOURCE_DRAW = 2
    TARGET_PIXELS = 3
    SOURCE_PIXELS = 4
    STRONG_PIXELS = 5
    VALIDATION = 6
    HEADS = 7
    STEP = 8


def generator(seed: int, purpose: Purpose, index: int = 0) -> np.random.Generator:
    """A generator of its own for each triple, the same in every process.

    Example:
        >>> a, b = generator(0, Purpose.TARGET_ORDER, 1), generator(0, Purpose.SOURCE_ORDER, 1)
        >>> c = generator(0, Purpose.TARGET_ORDER, 1).random()
        >>> (a.random() == c), (b.random() == c)
        (True, False)
    """
    # a spawn key, not entropy: SeedSequence takes [1] and [1, 0] for the same entropy
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(int(purpose), index))))


def image_seeds(seed: int, purpose: Purpose, step: int, n: int) -> list[int]:
    """A seed for each of the first n images of a step; those of a smaller n are among them."""
    return generator(seed, purpose, step).integers(2**63, size=n).tolist()


@contextmanager
def borrowed_generators() -> Iterator[Callable[[int], None]]:
    """Lend out the global generators of Python, NumPy and torch (CPU), which transforms of images draw from.

    Yields:
        A function that seeds all three. On leaving they stand as they stood before.

    Example:
        >>> before = random.getstate()
        >>> with borrowed_generators() as seed_all:
        ...     seed_all(3)
        ...     first = random.random()
        ...     seed_all(3)
        ...     first == random.random()
        True
        >>> random.getstate() == before
        True
    """
    # NPY002: timm's RandAugment draws from NumPy's global generator
    kept = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    try:
        yield _seed_all
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.default_generator.set_state(kept[2])


def _seed_all(number: int) -> None:
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(number)  # torch.manual_seed would seed the GPUs as well
