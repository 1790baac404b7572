"""Images under headings on one picture, by Pillow alone: the same images give the same picture, bit for bit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

_BACKGROUND, _INK, _GREY, _FRAME = "#ffffff", "#1c1c1c", "#5a5a5a", "#e3e6e9"
_CAPTION, _HEADING = 12, 16  # font sizes in pixels
_CAPTION_LINES = 3
_GAP, _MARGIN = 10, 16

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, eq=False)
class Tile:
    """An image of any mode and size, and what to write below it."""

    image: Image.Image
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Section:
    """Images under one heading."""

    heading: str
    tiles: tuple[Tile, ...]


def contact_sheet(sections: Sequence[Section], *, columns: int = 8, size: int = 128) -> Image.Image:
    """Lay out images in rows below their headings.

    Args:
        sections: What to show, from top to bottom.
        columns: Images in a row.
        size: Side of the square that each image is fitted into, uncropped, in pixels.

    Returns:
        An RGB picture, white where nothing is.

    Raises:
        ValueError: If there is nothing to show, or ``columns`` or ``size`` is too small.

    Example:
        >>> section = Section("chosen", (Tile(Image.new("L", (40, 20)), "cat"),))
        >>> contact_sheet([section], columns=2, size=64).width
        170
    """
    if columns < 1 or size < 16:
        raise ValueError(f"`columns` must be at least 1 and `size` at least 16, got {columns} and {size}.")
    shown = [section for section in sections if section.tiles]
    if not shown:
        raise ValueError("`sections` must hold at least one image, got none.")
    captions, headings = ImageFont.load_default(_CAPTION), ImageFont.load_default(_HEADING)
    row = size + 4 + _CAPTION_LINES * _line_height(captions) + _GAP
    width = 2 * _MARGIN + columns * (size + _GAP) - _GAP
    heading = _line_height(headings) + _GAP
    height = 2 * _MARGIN - _GAP + sum(heading + -(-len(section.tiles) // columns) * row for section in shown)

    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for section in shown:
        draw.text((_MARGIN, top), _fitted(section.heading, width - 2 * _MARGIN, headings), _INK, headings)
        top += heading
        for place, tile in enumerate(section.tiles):
            left, upper = _MARGIN + place % columns * (size + _GAP), top + place // columns * row
            _paste(sheet, tile.image, (left, upper), size)
            text = "\n".join(_wrapped(tile.caption, size, captions))
            draw.multiline_text((left, upper + size + 4), text, _GREY, captions, spacing=2)
        top += -(-len(section.tiles) // columns) * row
    return sheet


def _paste(sheet: Image.Image, image: Image.Image, corner: tuple[int, int], size: int) -> None:
    """Fit an image into its square, on the frame's colour where it is transparent or not square."""
    square = Image.new("RGB", (size, size), _FRAME)
    fitted = ImageOps.contain(_displayable(ImageOps.exif_transpose(image)), (size, size), Image.Resampling.BICUBIC)
    square.paste(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2), fitted)
    sheet.paste(square, corner)


def _displayable(image: Image.Image) -> Image.Image:
    """Return the image in RGBA; 16- and 32-bit greys, which Pillow would clip, are stretched to their range."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray(np.uint8(255 * (values - values.min()) / (np.ptp(values) or 1)))
    return image.convert("RGBA")


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """Break a caption into lines of ``width`` pixels: at spaces, inside words that are longer."""
    lines = [""]
    for word in text.split():
        while word:
            line = f"{lines[-1]} {word}".strip()
            if font.getlength(line) <= width:
                lines[-1], word = line, ""
            elif lines[-1]:
                lines.append("")
            else:
                fits = max(n for n in range(1, len(word) + 1) if n == 1 or font.getlength(word[:n]) <= width)
                lines[-1], word = word[:fits], word[fits:]
                lines.append("")
    lines = [line for line in lines if line]
    if len(lines) > _CAPTION_LINES:
        lines = [*lines[: _CAPTION_LINES - 1], _fitted(" ".join(lines[_CAPTION_LINES - 1 :]), width, font)]
    return lines


def _fitted(text: str, width: int, font: Font) -> str:
    """Cut a line that is too long, with dots at its end."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _line_height(font: Font) -> int:
    top, bottom = font.getbbox("Ag")[1::2]
    return int(bottom - min(top, 0)) + 2
