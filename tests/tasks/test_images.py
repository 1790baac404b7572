import datasets
import numpy as np
import pytest
from datasets import Array3D, Dataset, Features, Image, Value
from PIL import Image as Pillow

from hf_zoosel.tasks import Encoded, ImageError, load_task
from hf_zoosel.tasks.images import encode

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def test_one_file_has_one_digest_however_it_is_kept(png, tmp_path):
    data = png(5)
    (tmp_path / "a.png").write_bytes(data)
    kept = [data, bytearray(data), {"bytes": data, "path": "b.png"}, tmp_path / "a.png", str(tmp_path / "a.png")]
    kept += [{"bytes": None, "path": str(tmp_path / "a.png")}, (tmp_path / "a.png").as_uri()]
    assert len({encode(value).digest for value in kept}) == 1
    assert len(encode(data).digest) == 16


def test_one_array_has_one_digest_however_it_is_kept():
    image = Pillow.fromarray(PIXELS)
    assert len({encode(value).digest for value in (PIXELS, PIXELS.copy("F"), image, image.copy())}) == 1


def test_other_content_type_or_shape_has_another_digest():
    values = [PIXELS, PIXELS + 1, PIXELS.astype(np.uint16), PIXELS.reshape(4, 2, 3), PIXELS.tobytes(), None, b""]
    assert len({encode(value).digest for value in values}) == len(values)


def test_byte_order_does_not_matter():
    wide = PIXELS.astype("<u2")
    assert encode(wide).digest == encode(wide.astype(">u2")).digest


def test_equal_arrays_have_equal_digests_in_a_data_set_and_in_a_stream():
    features = Features({"image": Array3D((2, 4, 3), "uint8"), "label": Value("int64")})
    typed = Dataset.from_dict({"image": [PIXELS, PIXELS + 1], "label": [0, 1]}, features=features)
    stream = datasets.IterableDataset.from_generator(lambda: ({"image": PIXELS + i, "label": i} for i in range(2)))
    first, second = (load_task(data).images.encoded([0, 1]) for data in (typed, stream))
    assert first == second


def test_a_declared_mode_is_part_of_the_digest_and_of_the_pixels(toy):
    data = toy([0, 1])
    plain, grey = (load_task(d).images.encoded([1])[0] for d in (data, data.cast_column("image", Image(mode="L"))))
    assert plain.digest != grey.digest
    assert np.ptp(np.asarray(grey.decode()), axis=-1).max() == 0 < np.ptp(np.asarray(plain.decode()), axis=-1).max()


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "L", "1", "I;16"])
def test_pillow_images_in_memory_are_read_upright(mode):
    image = Pillow.fromarray(PIXELS).convert("L" if mode == "I;16" else "RGB").convert(mode)
    image.getexif()[0x0112] = 6
    before = image.tobytes()
    assert encode(image).decode().size == (2, 4)
    assert (image.size, image.tobytes()) == ((4, 2), before)  # the image of the caller is left alone


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, r"no image \(null\)"),
        ({"bytes": None, "path": None}, r"no image \(null\)"),
        ("nowhere/a.png", "missing file: a.png$"),
        (".", r"reading \."),
        ("file:///nowhere/a.png", "missing file"),
        ([[1, 2], [3]], "a value of type list is not an image"),
        (object(), "a value of type object is not an image"),
        (b"", "zero bytes"),
    ],
)
def test_what_is_no_image_says_so_when_it_is_decoded(value, reason):
    encoded = encode(value)
    assert isinstance(encoded, Encoded)
    with pytest.raises(ImageError, match=reason):
        encoded.decode()


def test_a_truncated_file_opened_by_pillow_says_so(png, tmp_path):
    (tmp_path / "cut.png").write_bytes(png(size=(300, 300))[:-40])
    with Pillow.open(tmp_path / "cut.png") as image, pytest.raises(ImageError, match="does not load"):
        encode(image).decode()


@pytest.mark.parametrize("as_stream", [False, True])
def test_a_bad_image_does_not_hurt_its_neighbours(png, as_stream):
    column = [content and {"bytes": content, "path": None} for content in (png(1), None, png(2)[:30], png(3))]
    column.insert(1, {"bytes": b"", "path": None})
    features = Features({"image": Image(), "label": Value("int64")})
    data = Dataset.from_dict({"image": column, "label": [0, 0, 0, 1, 1]}, features=features)
    images = load_task(data.to_iterable_dataset() if as_stream else data).images.encoded(range(5))
    reasons = []
    for image in images:
        try:
            reasons.append(image.decode().size)
        except ImageError as error:
            reasons.append(str(error).split(":")[0])
    assert reasons[:3] == [(4, 3), "zero bytes", "no image (null)"]
    assert isinstance(reasons[3], str)
    assert reasons[4] == (4, 3)
