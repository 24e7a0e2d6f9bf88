"""Images for tests, the same on every machine."""

import io

import numpy as np
from PIL import Image


def sample_pixels(number, width=40, height=30):
    """Return rows of red, green and blue values: another image for each number."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * (5 + number) + y * 3, y * (7 + 3 * number) + x, x * y * (1 + number) // 8 + 40 * number]
    return np.stack([channel % 256 for channel in channels], axis=-1).astype(np.uint8)


def image_file(array, file_format="PNG", **options):
    """Return an image as a file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, file_format, **options)
    return buffer.getvalue()


def png(number, width=40, height=30):
    """Return an image as a lossless file."""
    return image_file(sample_pixels(number, width, height))
