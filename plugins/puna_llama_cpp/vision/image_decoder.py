"""Decodes an image file into pixels, rotated as its EXIF data says.

Files come from untrusted sources. Only formats that are listed are tried, the size is checked before anything is
unpacked, and a file that is cut or broken is refused even where a decoder would show half of it.
"""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Pillow would otherwise try every format it knows, and each decoder is a surface for attacks.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM")
"""The formats that are decoded. Of animations only the first frame is."""
MAX_PIXELS = 64 * 1024 * 1024
"""Pixels of one image: more than cameras have, and less than a small file can be made to unpack to."""

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
"""The exceptions that Pillow raises for broken files."""


class UnreadableImageError(Exception):
    """The file is not an image or is broken; the text says why."""


class ImageTooLargeError(Exception):
    """The image has more than MAX_PIXELS pixels."""


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Return the rows of red, green and blue values. Transparency is dropped, as in llama.cpp.

    Raises UnreadableImageError for anything but an image of the known formats, and ImageTooLargeError.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # Pillow has read only the header so far.
            if image.width * image.height > MAX_PIXELS:
                raise ImageTooLargeError
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    # Pillow has limits of its own: a warning, and an error at twice that size.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    # 16 bits of gray: Pillow's conversion would clip the values to 255 instead of scaling them
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
