import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageOps

from hf_zoosel.tasks.decoding import ImageError, decode_array, decode_file

RAMP = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(image, form="PNG", **options):
    result = decode_file(encoded(image, form, **options))
    assert (type(result), result.mode, result.info) == (Image.Image, "RGB", {})
    return np.asarray(result)


def grey(values):
    return np.repeat(np.asarray(values, dtype=np.uint8)[..., None], 3, axis=-1)


def test_rgb_comes_back_as_it_was():
    np.testing.assert_array_equal(decoded(Image.fromarray(COLOUR)), COLOUR)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_files_decode_as_pillow_decodes_them(form):
    image = Image.fromarray(COLOUR)
    expected = Image.open(io.BytesIO(encoded(image, form))).convert("RGB")
    np.testing.assert_array_equal(decoded(image, form), np.asarray(expected))


def test_grey_is_repeated():
    np.testing.assert_array_equal(decoded(Image.fromarray(RAMP)), grey(RAMP))


def test_black_and_white_becomes_0_and_255():
    np.testing.assert_array_equal(decoded(Image.fromarray(RAMP > 100)), grey((RAMP > 100) * 255))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))])
def test_palettes_are_looked_up_and_their_transparency_is_dropped(transparency):
    image = Image.fromarray(RAMP).convert("P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    table = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
    options = {} if transparency is None else {"transparency": transparency}
    np.testing.assert_array_equal(decoded(image, **options), table[np.asarray(image)])


def test_a_transparent_colour_of_rgb_is_dropped():
    np.testing.assert_array_equal(decoded(Image.fromarray(COLOUR), transparency=(0, 200, 255)), COLOUR)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_and_not_composed(mode):
    image = Image.fromarray(COLOUR if mode == "RGBA" else RAMP)
    image.putalpha(Image.fromarray(RAMP))
    np.testing.assert_array_equal(decoded(image), COLOUR if mode == "RGBA" else grey(RAMP))


def test_cmyk_is_converted():
    ink = np.zeros((2, 2, 4), np.uint8)
    ink[0, 0], ink[1, 1] = (255, 0, 0, 0), (0, 0, 0, 255)  # cyan, black
    rgb = decoded(Image.frombytes("CMYK", (2, 2), ink.tobytes()), "TIFF")
    assert rgb[0, 0].tolist() == [0, 255, 255]
    assert rgb[1, 1].tolist() == [0, 0, 0]
    assert rgb[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_is_divided_by_257(form):
    wide = RAMP.astype(np.uint16) * 257
    wide[0, 0] = 300
    expected = RAMP.copy()
    expected[0, 0] = 1  # 300 / 257
    np.testing.assert_array_equal(decoded(Image.fromarray(wide), form), grey(expected))


def test_big_endian_16_bit_is_read():
    wide = Image.frombytes("I;16B", (8, 6), (RAMP.astype(">u2") * 257).tobytes())
    np.testing.assert_array_equal(decoded(wide, "TIFF"), grey(RAMP))


@pytest.mark.parametrize(("factor", "dtype"), [(1, np.int32), (257, np.int32), (1, np.float32), (1 / 255, np.float32)])
def test_32_bit_is_scaled_by_the_smallest_scale_that_holds_it(factor, dtype):
    full = np.linspace(0, 255, 48).round().reshape(6, 8)  # reaches the end of the scale
    np.testing.assert_array_equal(decoded(Image.fromarray((full * factor).astype(dtype)), "TIFF"), grey(full))


def test_pixels_beyond_16_bit_are_scaled_by_the_largest():
    assert decode_array(np.array([[0, 500_000, 1_000_000]])).getpixel((1, 0)) == (128, 128, 128)


def test_nan_and_infinity_become_black():
    assert np.asarray(decode_array(np.array([[np.nan, np.inf, 1.0]])))[0, :, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(COLOUR)
    data = encoded(image, form, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode_file(data)), expected)
    assert expected.shape == ((6, 8, 3) if orientation < 5 else (8, 6, 3))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow says so, and decodes
def test_damaged_exif_does_not_spoil_the_pixels():
    image = Image.fromarray(COLOUR)
    damaged = encoded(image, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\xff")
    np.testing.assert_array_equal(np.asarray(decode_file(damaged)), decoded(image, "JPEG"))


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert decoded(frames[0], "GIF", save_all=True, append_images=frames[1:])[0, 0].tolist() == [255, 0, 0]


def test_a_declared_mode_is_passed_through():
    data = encoded(Image.fromarray(COLOUR))
    np.testing.assert_array_equal(
        np.asarray(decode_file(data, "L")), grey(np.asarray(Image.fromarray(COLOUR).convert("L")))
    )


JPEG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero bytes"),
        (b"<!DOCTYPE html>", r"unknown image format, the first bytes are b'<!DOCTYP'"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (encoded(Image.fromarray(COLOUR))[:60], "."),
        (JPEG[:30], "."),
    ],
)
def test_unreadable_files_give_a_reason_in_one_line(data, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        decode_file(data)
    assert "\n" not in str(caught.value)


@settings(max_examples=200)
@given(st.binary(max_size=40), st.integers(0, 2000), st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]))
def test_damaged_files_decode_or_raise_image_error_and_nothing_else(noise, start, form):
    data = bytearray(encoded(Image.fromarray(COLOUR), form))
    start %= len(data)
    data[start : start + len(noise)] = noise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # a damaged header may ask for gigabytes
        with suppress(ImageError):
            assert decode_file(bytes(data)).mode == "RGB"


@pytest.mark.parametrize("limit", [40, 20])  # Pillow itself warns above its limit and raises above twice the limit
def test_a_decompression_bomb_is_an_error(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError, match="exceed"):
        decode_file(encoded(Image.fromarray(COLOUR)))


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (RAMP, grey(RAMP)),
        (RAMP[..., None], grey(RAMP)),
        (RAMP[None], grey(RAMP)),
        (COLOUR, COLOUR),
        (COLOUR.transpose(2, 0, 1), COLOUR),
        (np.dstack([COLOUR, RAMP]), COLOUR),
        (np.dstack([COLOUR, RAMP]).transpose(2, 0, 1), COLOUR),
        (RAMP > 50, grey((RAMP > 50) * 255)),
        (RAMP.astype(np.uint16) * 257, grey(RAMP)),
        (COLOUR.astype(">u2") * np.uint16(257), COLOUR),
        (COLOUR.astype(np.int64), COLOUR),
        (COLOUR.astype(np.float64), COLOUR),
        ((COLOUR / 255).astype(np.float32), COLOUR),
        ((COLOUR / 255).astype(np.float16), COLOUR),
    ],
)
def test_arrays_of_every_shape_and_type_are_read(pixels, expected):
    image = decode_array(pixels)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), expected)


@pytest.mark.parametrize("shape", [(), (5,), (6, 8, 2), (0, 8), (2, 2, 2, 3), (5, 6, 7)])
def test_arrays_of_other_shapes_are_refused(shape):
    with pytest.raises(ImageError, match="is not "):
        decode_array(np.zeros(shape, np.uint8))


def test_normalised_pixels_are_refused():
    with pytest.raises(ImageError, match="before normalisation"):
        decode_array(np.array([[-2.1, 0.0, 2.3]]))


def test_decoding_is_the_same_in_many_threads():
    data = [encoded(Image.fromarray(np.roll(COLOUR, shift, axis=0)), "JPEG") for shift in range(6)] * 20
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(decode_file, data))
    assert all(image.tobytes() == decode_file(item).tobytes() for image, item in zip(together, data, strict=True))
