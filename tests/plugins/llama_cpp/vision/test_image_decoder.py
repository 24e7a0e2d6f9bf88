"""Decoding: one image in many formats, and files that are no images."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tests.plugins.llama_cpp.sample_images import image_file, sample_pixels

from puna_llama_cpp.vision import image_decoder

ORIENTATION = 0x0112
# How a camera that was held in each of EXIF's eight ways has stored what it saw.
HELD = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.transpose(1, 0, 2),
    6: lambda seen: seen.transpose(1, 0, 2)[::-1],
    7: lambda seen: seen.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda seen: seen.transpose(1, 0, 2)[:, ::-1],
}
JPEG = {"quality": 100, "subsampling": 0}
LOSSLESS = (("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("PPM", {}))


def blocks():
    """Return an image that survives JPEG except for rounding: blocks of one color, as large as JPEG's own."""
    colors = np.array([[[250, 20, 30], [10, 240, 60]], [[40, 50, 200], [230, 220, 10]], [[0, 0, 0], [255, 255, 255]]])
    return np.kron(colors, np.ones((16, 16, 1))).astype(np.uint8)


@pytest.mark.parametrize(("form", "options"), LOSSLESS)
def test_an_image_is_the_same_in_every_form(form, options):
    assert np.array_equal(image_decoder.decode_image(image_file(sample_pixels(1), form, **options)), sample_pixels(1))


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_jpeg(options):
    got = image_decoder.decode_image(image_file(blocks(), "JPEG", **JPEG, **options))
    assert np.abs(got.astype(int) - blocks()).max() <= 3


@pytest.mark.parametrize("orientation", HELD)
@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", JPEG)])
def test_it_is_turned_as_the_camera_was(orientation, form, options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.ascontiguousarray(HELD[orientation](blocks()))
    got = image_decoder.decode_image(image_file(stored, form, exif=exif, **options))
    assert got.shape == blocks().shape
    assert np.abs(got.astype(int) - blocks()).max() <= (3 if form == "JPEG" else 0)


def test_what_is_not_of_three_colors_becomes_so():
    gray = sample_pixels(1)[..., 0]
    transparent = np.dstack([sample_pixels(1), gray])
    assert np.array_equal(image_decoder.decode_image(image_file(transparent)), sample_pixels(1))
    assert np.array_equal(image_decoder.decode_image(image_file(gray)), np.dstack([gray] * 3))
    deep = np.arange(0, 65536, 64, np.uint16).reshape(32, 32)
    assert np.array_equal(image_decoder.decode_image(image_file(deep))[..., 1], (deep >> 8).astype(np.uint8))


def test_of_moving_images_the_first_is_seen():
    others = [Image.fromarray(sample_pixels(number)) for number in (2, 3)]
    moving = image_file(sample_pixels(1), "WEBP", lossless=True, save_all=True, append_images=others)
    assert np.array_equal(image_decoder.decode_image(moving), sample_pixels(1))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM"])
def test_a_file_that_was_cut_is_broken(form):
    data = image_file(sample_pixels(1, 64, 64), form)
    for length in (0, 3, 20, len(data) // 2):
        with pytest.raises(image_decoder.UnreadableImageError):
            image_decoder.decode_image(data[:length])


@pytest.mark.parametrize("data", [b"", b"no image", b"RIFF\x24\0\0\0WAVEfmt ", image_file(sample_pixels(1), "TIFF")])
def test_what_is_no_image_of_a_known_form_is_refused(data):
    with pytest.raises(image_decoder.UnreadableImageError):
        image_decoder.decode_image(data)


@pytest.mark.parametrize("side", [8193, 9000, 12000, 60000])
def test_more_pixels_than_anybody_has_are_not_unpacked(side):
    """A file of a few bytes names a size that would unpack to gigabytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    with pytest.raises(image_decoder.ImageTooLargeError):
        image_decoder.decode_image(data)
