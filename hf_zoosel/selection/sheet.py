"""The contact sheet of a selection: what was chosen, what nearly was, what was not, below the target itself."""

from collections.abc import Callable, Sequence

from PIL import Image

from hf_zoosel.selection.contact_sheet import Section, Tile, contact_sheet
from hf_zoosel.selection.record import SourceClass, SourceSelection, TargetClass

ImageOf = Callable[[int], Image.Image]


def selection_sheet(
    selection: SourceSelection, source_image: ImageOf, target_image: ImageOf, *, n: int = 16, size: int = 128
) -> Image.Image:
    """Show sample images of a selection beside the target's.

    Args:
        selection: A selection of classes or clusters.
        source_image: Position of a source class -> an image of it. Called for what is shown only.
        target_image: Position of a target class -> an image of it.
        n: Images in each of the four sections at most, 8 in a row.
        size: Side of an image in pixels.

    Returns:
        A picture in four sections: target classes, evenly spaced from best to worst served; the first chosen; the last
        chosen and the first rejected; the last rejected.

    Raises:
        ValueError: If the selection holds no classes, or ``n`` is below 1.
    """
    if n < 1 or not selection.ranked:
        raise ValueError(
            f"`n` must be at least 1 and `selection` hold classes, got {n} and {len(selection.ranked)} classes."
        )
    unchosen = selection.rejected
    last, first = selection.classes[-(n - n // 2) :], unchosen[: n // 2]
    sections = [
        Section(f"target: {selection.target}, best served first", _target_tiles(_spread(selection, n), target_image)),
        Section(f"chosen first, of {selection.n_chosen:,}", _source_tiles(selection.classes[:n], source_image)),
        Section("borderline: chosen last", _source_tiles(last, source_image) if unchosen else ()),
        Section("borderline: rejected first", _source_tiles(first, source_image)),
        Section(f"rejected last, of {len(unchosen):,}", _source_tiles(unchosen[-n:], source_image)),
    ]
    return contact_sheet(sections, size=size)


def _spread(selection: SourceSelection, n: int) -> list[TargetClass]:
    """Return n target classes, evenly spaced in order of distance to what was chosen."""
    ordered = sorted(selection.coverage, key=lambda one: (one.distance, one.name))
    last = len(ordered) - 1
    return [ordered[round(i * last / max(n - 1, 1))] for i in range(n)] if n < len(ordered) else ordered


def _target_tiles(classes: Sequence[TargetClass], image: ImageOf) -> tuple[Tile, ...]:
    return tuple(Tile(image(c.index), f"{c.name} {c.distance:.3f} to {c.nearest}") for c in classes)


def _source_tiles(classes: Sequence[SourceClass], image: ImageOf) -> tuple[Tile, ...]:
    return tuple(Tile(image(c.index), f"{c.name} {c.distance:.3f} to {c.nearest}") for c in classes)
