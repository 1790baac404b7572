"""A contact sheet of a selection: would a person agree?"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hf_zoosel.selection import SourceSelection, selection_sheet
from hf_zoosel.tasks import Task, load_task

if TYPE_CHECKING:
    from PIL import Image


def contact_sheet(
    selection: SourceSelection,
    target: Any,
    source: Any,
    *,
    split: str | None = None,
    source_split: str | None = None,
    n: int = 16,
    size: int = 128,
) -> "Image.Image":
    """Show one image of each class that was chosen, nearly chosen and rejected, below the target's own.

    Args:
        selection: A selection of classes.
        target: The target it was made for.
        source: The source it was made from.
        split: The target's split; the train split if None.
        source_split: The source's.
        n: Images in each section at most.
        size: Side of an image in pixels.

    Returns:
        The sheet.

    Raises:
        ValueError: If the selection is one of clusters or samples, or a data set has no image of a class.
    """
    if selection.unit != "class":
        raise ValueError(f"`selection` must be one of classes, got one of unit {selection.unit!r}. Look at its rows.")
    source_names = {one.index: one.name for one in selection.ranked}
    target_names = {one.index: one.name for one in selection.coverage}
    source_task = load_task(source, split=source_split, max_per_class=1)
    target_task = load_task(target, split=split, max_per_class=1)
    return selection_sheet(
        selection, _image_of(source_task, source_names), _image_of(target_task, target_names), n=n, size=size
    )


def _image_of(task: Task, names: dict[int, str]) -> Callable[[int], "Image.Image"]:
    place = {name: number for number, name in enumerate(task.class_names)}
    row_of = {int(label): row for row, label in enumerate(task.labels)}

    def image(index: int) -> "Image.Image":
        name = names[index]
        if name not in place:
            raise ValueError(f"`{task.name}` must hold an image of {name!r}, got none. Pass what was selected from.")
        return task.images.encoded([row_of[place[name]]])[0].decode()

    return image
