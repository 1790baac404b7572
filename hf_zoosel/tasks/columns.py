"""Find which column holds the images and which the labels, or say what there is to choose from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any, Literal

from hf_zoosel.tasks.errors import NoLabelColumnError

IMAGE_NAMES = (
    "image", "images", "img", "imgs", "pixel_values", "pixels", "picture", "photo", "file", "filename", "file_name",
    "filepath", "file_path", "path", "image_path", "image_file", "image_bytes", "bytes", "jpg", "jpeg", "png", "webp",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "target", "targets", "class", "classes", "class_label", "class_id", "class_name", "category",
    "category_id", "fine_label", "label_fine", "label_id", "label_name", "species", "cls", "y",
)  # fmt: skip
Kind = Literal["image", "class", "int", "str", "bool", "float", "binary", "list", "file", "null", "other"]
_LABEL_KINDS = ("class", "int", "str", "bool", "null")
_IMAGE_KINDS = ("image", "binary", "str", "list", "file")


@dataclass(frozen=True)
class Columns:
    """The two columns of a task and the features they were declared with."""

    image: str
    label: str
    image_feature: Any
    label_feature: Any

    @property
    def mode(self) -> str | None:
        """Pillow mode that the image column asks for."""
        return getattr(self.image_feature, "mode", None)

    @property
    def class_names(self) -> list[str] | None:
        """Names of a ClassLabel column, else None."""
        return self.label_feature.names if kind_of(self.label_feature) == "class" else None


def find_columns(
    features: Mapping[str, Any],
    peek: Callable[[str], object],
    *,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Columns:
    """Find the image and the label column.

    Args:
        features: Column name to its ``datasets`` feature.
        peek: Returns the first value of a column that is not null, or None.
        image_column: Name of the image column; None to find it.
        label_column: Name of the label column; None to find it.

    Raises:
        ValueError: If a named column does not exist or cannot be what it is named as; if none or several fit. The
            message lists the columns with their types.
        NoLabelColumnError: If it is the label column that does not exist.
    """
    kinds = {name: kind_of(feature) for name, feature in features.items()}
    listing = ", ".join(f"{name}: {describe(feature)}" for name, feature in features.items())
    image = _image_column(kinds, peek, image_column, listing)
    label = _label_column({name: kind for name, kind in kinds.items() if name != image}, label_column, listing)
    return Columns(image, label, features[image], features[label])


def find_image_column(
    features: Mapping[str, Any], peek: Callable[[str], object], *, image_column: str | None = None
) -> str:
    """Find the image column alone; arguments and errors as in ``find_columns``."""
    kinds = {name: kind_of(feature) for name, feature in features.items()}
    listing = ", ".join(f"{name}: {describe(feature)}" for name, feature in features.items())
    return _image_column(kinds, peek, image_column, listing)


def has_label_column(features: Mapping[str, Any], image_column: str) -> bool:
    """Whether a column beside the images is a ClassLabel or has a usual name of labels."""
    others = {name: kind_of(feature) for name, feature in features.items() if name != image_column}
    return any(kind == "class" or name.lower() in LABEL_NAMES for name, kind in others.items())


def kind_of(feature: object) -> Kind:
    """Say what a ``datasets`` feature can serve as."""
    import datasets

    if isinstance(feature, Mapping):
        return "file" if "bytes" in feature or "path" in feature else "other"
    if isinstance(feature, datasets.Image):
        return "image"
    if isinstance(feature, datasets.ClassLabel):
        return "class"
    if isinstance(feature, datasets.Value):
        return _kind_of_dtype(feature.dtype)
    lists = (list, datasets.List, datasets.LargeList, datasets.Array2D, datasets.Array3D)
    return "list" if isinstance(feature, lists) else "other"


def describe(feature: object) -> str:
    """Write a feature in a few words."""
    kind = kind_of(feature)
    if kind == "class":
        return f"ClassLabel of {feature.num_classes}"  # type: ignore[attr-defined]
    return str(getattr(feature, "dtype", kind)) if kind not in ("image", "list", "file") else kind


def _kind_of_dtype(dtype: str) -> Kind:
    if dtype == "bool" or dtype == "null":
        return dtype  # type: ignore[return-value]
    if dtype.startswith(("int", "uint")):
        return "int"
    starts: dict[str, Kind] = {"float": "float", "string": "str", "large_string": "str"}
    found = next((kind for start, kind in starts.items() if dtype.startswith(start)), None)
    return found or ("binary" if "binary" in dtype else "other")


def _image_column(kinds: Mapping[str, Kind], peek: Callable[[str], object], named: str | None, listing: str) -> str:
    if named is not None:
        _check_exists("image_column", named, kinds, listing)
        if kinds[named] not in _IMAGE_KINDS:
            raise ValueError(
                f"`image_column` must hold images, bytes, paths or arrays, got {named!r}. The columns are: {listing}."
            )
        return named
    found = [name for name, kind in kinds.items() if kind == "image"]
    if not found:
        usual = [name for name, kind in kinds.items() if name.lower() in IMAGE_NAMES and kind in _IMAGE_KINDS]
        found = [name for name in usual if kinds[name] != "str" or _is_image_path(peek(name))]
    return _the_only(found, "image_column", "an image", listing)


def _label_column(kinds: Mapping[str, Kind], named: str | None, listing: str) -> str:
    if named is not None:
        _check_exists("label_column", named, kinds, listing)
        _check_label_kind(named, kinds[named], listing)
        return named
    found = [name for name, kind in kinds.items() if kind == "class"]
    if not found:
        usual = [name for name in kinds if name.lower() in LABEL_NAMES]
        found = [name for name in usual if kinds[name] in _LABEL_KINDS]
        if not found and usual:
            _check_label_kind(usual[0], kinds[usual[0]], listing)
    return _the_only(found, "label_column", "a label", listing)


def _check_exists(argument: str, named: str, kinds: Mapping[str, Kind], listing: str) -> None:
    if named in kinds:
        return
    close = get_close_matches(named, kinds, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise (NoLabelColumnError if argument == "label_column" else ValueError)(
        f"`{argument}` must name a column of the data set, got {named!r}.{hint} The columns are: {listing}."
    )


def _check_label_kind(name: str, kind: Kind, listing: str) -> None:
    if kind in _LABEL_KINDS:
        return
    remedy = {
        "float": "Floats are a regression target: bin them into classes, or, if they are class ids, cast the column "
        "to int64 with `dataset.cast_column`",
        "list": "Several labels per image are a multi-label target: keep one label per image, e.g. with `dataset.map`",
    }.get(kind, "Pass another column")
    raise ValueError(
        f"`label_column` must hold one class per image (ClassLabel, int, str or bool), got {name!r}. {remedy}. "
        f"The columns are: {listing}."
    )


def _the_only(found: list[str], argument: str, what: str, listing: str) -> str:
    if len(found) == 1:
        return found[0]
    which = f"any of {', '.join(found)}" if found else "none"
    raise (ValueError if found or argument != "label_column" else NoLabelColumnError)(
        f"`dataset` must have exactly one column that looks like {what} column, got {which}. "
        f"Pass `{argument}=`; the columns are: {listing}."
    )


def _is_image_path(value: object) -> bool:
    from PIL import Image

    return isinstance(value, str) and PurePosixPath(value).suffix.lower() in Image.registered_extensions()
