"""Images held out of the target that are in the source too: trained on, they would flatter every figure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from hf_zoosel.training.streams import LabelledRows

_LOOKED_AT = 20_000  # rows of each, evenly spread; all, once one is found
_AT_ONCE = 512


def without_held_out(source: LabelledRows, held_out: Sequence[LabelledRows | None]) -> LabelledRows:
    """The source less the images that the model is to be validated or tested on, known by their content.

    Args:
        source: Rows to train with beside the target.
        held_out: Rows that are not to be trained on. Of data sets of more than 20,000 rows so many are looked at to
            find whether they share images at all.

    Raises:
        ValueError: If no other image is left.
    """
    apart = [rows for rows in held_out if rows is not None]
    if not _shared(source, apart, _LOOKED_AT).any():
        return source
    shared = _shared(source, apart, None)
    kept = np.flatnonzero(~shared)
    if len(kept) == 0:
        raise ValueError(
            f"`source` must hold images that the model is not measured on, got only such in {source.name!r}. "
            "Pass other data."
        )
    what = "image is" if len(kept) == len(source) - 1 else "images are"
    note = f"{len(source) - len(kept):,} source {what} among those to validate or test on, and left out of training"
    left = replace(source.take(kept), notes=(*source.notes, note))
    return left if source.weights is None else replace(left, weights=_of_the_same_mass(source, kept))


def _of_the_same_mass(source: LabelledRows, kept: np.ndarray) -> np.ndarray:
    """Weights of the rows that are left, such that each class is drawn as often as before, float64 ``(n,)``."""
    assert source.weights is not None
    labels = np.zeros(len(source), dtype=np.int64) if source.labels is None else source.labels
    before = np.bincount(labels, source.weights)
    after = np.bincount(labels[kept], source.weights[kept], len(before))
    weights = source.weights[kept] * np.divide(before, after, out=np.zeros_like(before), where=after > 0)[labels[kept]]
    if not weights.any():
        raise ValueError(
            f"`source` must hold images of some mass that the model is not measured on, got none in {source.name!r}. "
            "Pass other data, or draw all alike (source_sampling='uniform')."
        )
    return weights


def _shared(source: LabelledRows, apart: Sequence[LabelledRows], most: int | None) -> np.ndarray:
    """Which rows of the source hold an image of the others, bool ``(n,)``."""
    held = {digest for rows in apart for _, digest in _digests(rows, most)}
    shared = np.zeros(len(source), dtype=bool)
    if held:
        shared[[position for position, digest in _digests(source, most) if digest in held]] = True
    return shared


def _digests(rows: LabelledRows, most: int | None) -> Iterator[tuple[int, bytes]]:
    """Position and digest of each image that is there, or of so many, evenly spread."""
    n = len(rows) if most is None else min(len(rows), most)
    positions = np.unique(np.linspace(0, len(rows) - 1, n).astype(np.int64))
    for at in range(0, n, _AT_ONCE):
        some = positions[at : at + _AT_ONCE].tolist()
        for position, image in zip(some, rows.images.encoded(some), strict=True):
            if not isinstance(image.content, str):  # what cannot be read is alike
                yield position, image.digest
