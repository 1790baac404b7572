"""What a batch holds: rows read, decoded and augmented, as a function of the seed and the step."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hf_zoosel.training.augment import View
from hf_zoosel.training.plan import share
from hf_zoosel.training.randomness import Purpose, borrowed_generators, image_seeds
from hf_zoosel.training.streams import LabelledRows


class LoadingError(RuntimeError):
    """Batches that cannot be made."""


class Batch(NamedTuple):
    """One step's rows of this process.

    Attributes:
        step: The step.
        pixels: Target rows, then source rows: ``uint8 (n, height, width, channels)``, or float32
            ``(n, channels, height, width)`` where the preprocessing cannot be split.
        labels: Their classes, int64 ``(n,)``; -1 where there are no labels.
        n_target: How many are the target's.
        strong: The strong view of the source rows, where asked for.
        unreadable: Rows that could not be read, such as ``"target row 7"``, and why; others stand in their place.
    """

    step: int
    pixels: Tensor
    labels: Tensor
    n_target: int
    strong: Tensor | None
    unreadable: dict[str, str]


class EvaluationBatch(NamedTuple):
    """Some neighbouring rows of this process's share.

    Attributes:
        rows: Their numbers in the split, int64 ``(n,)``; n is 0 where none could be read.
        pixels: As in ``Batch``.
        labels: Their classes, int64 ``(n,)``.
        unreadable: Numbers of rows that could not be read and are left out, and why.
    """

    rows: Tensor
    pixels: Tensor
    labels: Tensor
    unreadable: dict[int, str]


class Plan(Protocol):
    """Says which rows a step sees, a function of the step alone."""

    def rows(self, step: int) -> np.ndarray:
        """Rows of a step over all processes, ``(batch_size,)``."""
        ...


@dataclass(frozen=True)
class Stream:
    """Rows, the order they come in, and what is seen of them; ``strong`` is a second view of the same rows."""

    rows: LabelledRows
    plan: Plan
    view: View
    strong: View | None = None


@dataclass(frozen=True)
class Failure:
    """What went wrong in a worker: an exception that does not survive pickle would hang the loader."""

    message: str
    details: str = ""


class BatchMaker:
    """Makes the batch of a number; failures become values."""

    def __getitem__(self, number: int) -> Any:
        try:
            return self.make(number)
        except LoadingError as error:
            return Failure(str(error))
        except Exception as error:  # of a data set, or of a person's transform
            return Failure(f"A batch could not be made: {type(error).__name__}: {error}", traceback.format_exc())

    def make(self, number: int) -> Batch | EvaluationBatch:
        """The batch, or any exception."""
        raise NotImplementedError


class StepMaker(BatchMaker):
    """Makes this process's batch of a step."""

    def __init__(self, target: Stream, source: Stream | None, seed: int, rank: int, size: int) -> None:
        self._parts = [("target", target, Purpose.TARGET_PIXELS, _Reader(target.rows, "dataset"))]
        if source is not None:
            self._parts.append(("source", source, Purpose.SOURCE_PIXELS, _Reader(source.rows, "source")))
        self._seed, self._rank, self._size = seed, rank, size

    def make(self, number: int) -> Batch:
        """Rows of the target, then of the source."""
        labels: list[np.ndarray] = []
        pixels: list[np.ndarray] = []
        strong: list[np.ndarray] = []
        unreadable: dict[str, str] = {}
        for name, stream, purpose, reader in self._parts:
            rows = stream.plan.rows(number)
            mine = share(rows, self._rank, self._size)
            positions, images, lost = reader.replaced(mine)
            unreadable |= {f"{name} row {stream.rows.rows[position]}": why for position, why in lost.items()}
            labels.append(stream.rows.labels_at(positions))
            pixels += _seen(images, stream.view, self._seeds(purpose, number, len(rows)))
            if stream.strong is not None:
                strong += _seen(images, stream.strong, self._seeds(Purpose.STRONG_PIXELS, number, len(rows)))
        classes = torch.from_numpy(np.concatenate(labels))
        return Batch(number, _stack(pixels), classes, len(labels[0]), _stack(strong) if strong else None, unreadable)

    def _seeds(self, purpose: Purpose, step: int, n_rows: int) -> list[int]:
        """Seeds of this process's images: those of their places in the batch of all processes."""
        each = n_rows // self._size
        return image_seeds(self._seed, purpose, step, n_rows)[self._rank * each : (self._rank + 1) * each]


class SliceMaker(BatchMaker):
    """Makes the batch of one of some slices of rows."""

    def __init__(self, rows: LabelledRows, view: View, slices: Sequence[np.ndarray]) -> None:
        self._rows, self._view, self._slices = rows, view, slices
        self._reader = _Reader(rows, "dataset")

    def make(self, number: int) -> EvaluationBatch:
        """The rows of a slice that can be read."""
        positions, images, lost = self._reader.readable(self._slices[number])
        at = np.array(positions, dtype=np.int64)
        pixels = _stack(_seen(images, self._view, [0] * len(images)))
        unreadable = {int(self._rows.rows[position]): why for position, why in lost.items()}
        labels = torch.from_numpy(self._rows.labels_at(at))
        return EvaluationBatch(torch.from_numpy(self._rows.rows[at]), pixels, labels, unreadable)


@dataclass
class _Reader:
    """Decodes rows of a stream and remembers those that cannot be."""

    rows: LabelledRows
    argument: str
    known: dict[int, str] = field(default_factory=dict)

    def readable(self, positions: np.ndarray) -> tuple[list[int], list[Image.Image], dict[int, str]]:
        """Those that can be read, their images, and why the others cannot."""
        wanted = [position for position in dict.fromkeys(positions.tolist()) if position not in self.known]
        found: dict[int, Image.Image] = {}
        for position, encoded in zip(wanted, self.rows.images.encoded(wanted), strict=True):
            try:
                found[position] = encoded.decode()
            except Exception as error:  # beside ImageError there is MemoryError: no image, no pixels
                self.known[position] = str(error) or type(error).__name__
        lost = {position: self.known[position] for position in positions.tolist() if position in self.known}
        there = [position for position in positions.tolist() if position in found]
        return there, [found[position] for position in there], lost

    def replaced(self, positions: np.ndarray) -> tuple[np.ndarray, list[Image.Image], dict[int, str]]:
        """As many images as positions: for a row that cannot be read the next one that can."""
        there, images, lost = self.readable(positions)
        if not lost:
            return positions, images, lost
        found = dict(zip(there, images, strict=True))
        stood_in = [self._next(position, found, lost) for position in positions.tolist()]
        return np.array(stood_in), [found[at] for at in stood_in], lost

    def _next(self, position: int, found: dict[int, Image.Image], lost: dict[int, str]) -> int:
        weights = self.rows.weights
        for at in ((position + step) % len(self.rows) for step in range(len(self.rows))):
            if at in found:
                return at
            if weights is not None and weights[at] == 0:
                continue
            _, images, more = self.readable(np.array([at]))
            lost |= more
            if images:
                found[at] = images[0]
                return at
        raise LoadingError(
            f"`{self.argument}` must hold images that can be read, got none among the {len(self.rows):,} rows of "
            f"{self.rows.name!r}. The first reason: {next(iter(lost.values()))}."
        )


def _seen(images: Sequence[Image.Image], view: View, seeds: Sequence[int]) -> list[np.ndarray]:
    """What a view shows of each image, with random numbers from its own seed."""
    made = []
    with borrowed_generators() as seed_all:
        for image, seed in zip(images, seeds, strict=True):
            seed_all(seed)
            made.append(view(image))
    return made


def _stack(pixels: Sequence[np.ndarray]) -> Tensor:
    shapes = {one.shape for one in pixels}
    if len(shapes) > 1:
        listed = " and ".join(map(str, sorted(shapes)[:2]))
        raise LoadingError(f"The preprocessing must give all images one size, got pixels of {listed}.")
    return torch.from_numpy(np.stack(pixels)) if pixels else torch.empty(0)
