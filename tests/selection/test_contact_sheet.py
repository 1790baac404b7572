import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageFont

from hf_zoosel.selection import Section, SourceSelection, Tile, contact_sheet, select_groups, selection_sheet
from hf_zoosel.selection.contact_sheet import _wrapped
from tests.selection.conftest import make_groups


def colored(color, size=(40, 30), mode="RGB"):
    return Image.new(mode, size, color)


def sheet_of(n, caption="a caption"):
    return [Section("heading", tuple(Tile(colored((i % 256, 80, 120)), caption) for i in range(n)))]


def test_the_same_images_give_the_same_picture_bit_for_bit():
    one, other = (contact_sheet(sheet_of(11)) for _ in range(2))
    assert one.tobytes() == other.tobytes()
    assert one.mode == "RGB"
    assert contact_sheet(sheet_of(11, "another")).tobytes() != one.tobytes()


@pytest.mark.parametrize("n", [1, 8, 9, 40])
def test_rows_are_added_as_images_are(n):
    height = contact_sheet(sheet_of(n)).height
    one, two = (contact_sheet(sheet_of(k)).height for k in (8, 9))
    assert height == one + (-(-n // 8) - 1) * (two - one)


@pytest.mark.parametrize("size", [(300, 20), (20, 300), (128, 128), (1, 1)])
def test_images_are_fitted_whole_and_centred(size):
    sheet = np.asarray(contact_sheet([Section("x", (Tile(colored((255, 0, 0), size)),))], columns=1, size=128))
    rows, columns = np.where((sheet == (255, 0, 0)).all(axis=2))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert max(height, width) == 128
    assert height / width == pytest.approx(size[1] / size[0], rel=0.1)
    assert columns.min() + columns.max() == pytest.approx(sheet.shape[1] - 1, abs=1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "I", "I;16", "F", "PA"])
def test_every_mode_is_shown(mode):
    sheet = contact_sheet([Section("x", (Tile(Image.new(mode, (30, 20)), mode),))])
    assert sheet.mode == "RGB"


def test_deep_greys_are_stretched_and_not_clipped():
    values = np.linspace(0, 60_000, 64 * 64).reshape(64, 64).astype(np.uint16)
    sheet = np.asarray(contact_sheet([Section("", (Tile(Image.fromarray(values)),))], columns=1, size=64))
    shown = sheet[16 + 20 :, 16:80].reshape(-1, 3)
    assert len(np.unique(shown[:, 0])) > 100


def test_a_transparent_image_stands_on_the_frame():
    sheet = contact_sheet([Section("", (Tile(colored((255, 0, 0, 0), mode="RGBA")),))])
    assert (255, 0, 0) not in {color for _, color in sheet.getcolors(1 << 24)}


def test_images_are_left_as_they_are():
    image = colored((1, 2, 3))
    before = image.tobytes()
    contact_sheet([Section("x", (Tile(image),))])
    assert (image.tobytes(), image.size) == (before, (40, 30))


@pytest.mark.parametrize(
    "text", ["", "cat", "very " * 40, "x" * 200, "house finch, linnet, Carpodacus mexicanus 0.01"]
)
def test_captions_stay_in_their_column(text):
    font = ImageFont.load_default(12)
    lines = _wrapped(text, 128, font)
    assert len(lines) <= 3
    assert all(font.getlength(line) <= 128 for line in lines)
    if len(text) > 100:
        assert lines[-1].endswith("...")
    else:
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_nothing_to_show_is_said():
    with pytest.raises(ValueError, match="at least one image, got none"):
        contact_sheet([Section("empty", ())])
    with pytest.raises(ValueError, match="got 0 and 128"):
        contact_sheet(sheet_of(1), columns=0)
    with pytest.raises(ValueError, match="got 8 and 4"):
        contact_sheet(sheet_of(1), size=4)


def test_a_selection_asks_only_for_the_images_it_shows(selection):
    asked = {"source": [], "target": []}

    def image_of(kind):
        def image(index):
            asked[kind].append(index)
            return colored((index * 5, 100, 100))

        return image

    sheet = selection_sheet(selection, image_of("source"), image_of("target"), n=4)
    ranked = [c.index for c in selection.ranked]
    assert asked["source"] == [*ranked[:4], *ranked[8:10], *ranked[10:12], *ranked[-4:]]
    by_distance = [t.index for t in sorted(selection.coverage, key=lambda t: t.distance)]
    assert asked["target"] == [by_distance[0], by_distance[2], by_distance[4], by_distance[6]]
    assert sheet.width > 8 * 128


def test_a_selection_of_everything_has_no_rejected_classes():
    found = select_groups(make_groups(5), make_groups(2, seed=1), method="all")
    asked = []
    selection_sheet(found, lambda index: asked.append(index) or colored((0, 0, 0)), lambda _: colored((9, 9, 9)))
    assert asked == [c.index for c in found.classes]


def test_a_sheet_needs_classes(selection):
    with pytest.raises(ValueError, match="`n` must be at least 1 and `selection` hold classes, got 0 and 40"):
        selection_sheet(selection, None, None, n=0)
    rows = SourceSelection("uot", 0, (), (), 10.0, unit="sample", rows=(1,))
    with pytest.raises(ValueError, match="got 4 and 0 classes"):
        selection_sheet(rows, None, None, n=4)
    one = dataclasses.replace(selection, target="x" * 500)
    assert selection_sheet(one, lambda _: colored((0, 0, 0)), lambda _: colored((9, 9, 9)), n=1).width > 8 * 128
