"""The contact sheet of a selection: what was chosen, what nearly was, what was not, below the target itself."""

from collections.abc import Callable, Sequence

from PIL import Image

from hf_zoosel.selection.contact_sheet import Section, Tile, contact_sheet
from hf_zoosel.selection.record import SourceClass, SourceSelection, TargetClass

ImageOf = Callable[[int], Image.Image]
Shown = list[tuple[int, str]]  # which image, and what to write below it


def selection_sheet(
    selection: SourceSelection, source_image: ImageOf, target_image: ImageOf, *, n: int = 16, size: int = 128
) -> Image.Image:
    """Show sample images of a selection beside the target's.

    Args:
        selection: A selection of classes, clusters or samples.
        source_image: Position of a source class -> an image of it; row of a sample -> that sample. Called for what is
            shown only.
        target_image: Position of a target class -> an image of it.
        n: Images in each of the sections at most, 8 in a row.
        size: Side of an image in pixels.

    Returns:
        A picture in sections: target classes, evenly spaced from best to worst served; the first chosen; the last
        chosen and the first rejected; the last rejected; no class twice. Of samples: target classes, those of most
        and least weight.

    Raises:
        ValueError: If the selection holds neither classes nor weights of samples, or ``n`` is below 1.
    """
    (heading, classes), *of_source = shown_in(selection, n)
    sections = [Section(heading, tuple(Tile(target_image(index), caption) for index, caption in classes))]
    for heading, shown in of_source:
        sections.append(Section(heading, tuple(Tile(source_image(index), caption) for index, caption in shown)))
    return contact_sheet(sections, size=size)


def shown_in(selection: SourceSelection, n: int) -> list[tuple[str, Shown]]:
    """Return the headings of a sheet and what stands below each, the target's first.

    Raises:
        ValueError: As ``selection_sheet``.
    """
    if n < 1 or not (selection.ranked or selection.weights):
        raise ValueError(
            f"`n` must be at least 1 and `selection` hold classes, got {n} and {len(selection.ranked)} classes."
        )
    target = (f"target: {selection.target}, best served first", _classes(_spread(selection, n)))
    if not selection.ranked:
        return [target, *_samples(selection, n)]
    unchosen = selection.rejected
    return [
        target,
        (f"chosen first, of {selection.n_chosen:,}", _classes(selection.classes[:n])),
        ("borderline: chosen last", _classes(selection.classes[n:][-(n - n // 2) :]) if unchosen else []),
        ("borderline: rejected first", _classes(unchosen[: n // 2])),
        (f"rejected last, of {len(unchosen):,}", _classes(unchosen[n // 2 :][-n:])),
    ]


def _samples(selection: SourceSelection, n: int) -> list[tuple[str, Shown]]:
    weighed = sorted(
        zip(selection.weights or (), selection.rows or (), strict=True), key=lambda one: (-one[0], one[1])
    )
    shown = [(row, f"row {row} weight {weight:#.3g}") for weight, row in weighed]
    return [(f"chosen, most weight, of {len(shown):,}", shown[:n]), ("chosen, least weight", shown[n:][-n:])]


def _spread(selection: SourceSelection, n: int) -> list[TargetClass]:
    """Return n target classes, evenly spaced in order of distance to what was chosen."""
    ordered = sorted(selection.coverage, key=lambda one: (one.distance, one.name))
    last = len(ordered) - 1
    return [ordered[round(i * last / max(n - 1, 1))] for i in range(n)] if n < len(ordered) else ordered


def _classes(classes: Sequence[TargetClass] | Sequence[SourceClass]) -> Shown:
    return [(one.index, f"{one.name} {one.distance:.3f} to {one.nearest}") for one in classes]
