"""From an image's file to its pixels, turned as its camera says."""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM")
"""What is looked at, of moving images the first; nothing else is even tried."""
MAX_PIXELS = 64 * 1024 * 1024
"""Of one image: more than cameras have, and less than a small file can be made to unpack to."""

_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    LookupError,
    TypeError,
    OverflowError,
)
"""What Pillow raises on files that are not what they say."""


class UnreadableImageError(Exception):
    """This is no image, or a broken one; the text says what is wrong."""


class ImageTooLargeError(Exception):
    """This image has more than MOST_PIXELS."""


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Return rows of red, green and blue; transparency is left out, as llama.cpp does.

    UnreadableError: it is no image of these formats. TooLargeError: it has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageTooLargeError
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of gray, of which Pillow would cut off what does not fit into 8
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
