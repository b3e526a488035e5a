"""Preprocess photographs and scans of digits as MNIST was: segment, scale and centre them."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_lit.datasets.images import open_scaled
from mnist_lit.reader.digits import find_digit
from mnist_lit.reader.ink import BLANK, Ink, find_ink
from mnist_lit.reader.normalize import normalize
from mnist_lit.reader.several import find_digits
from mnist_lit.reader.strokes import join_strokes

__all__ = ["Sheet", "as_mnist", "as_sheet", "open_sheet", "read_sheet"]

Found = TypeVar("Found")

SMALL_SIDE = 96
"""Pixels of the shorter side below which a picture that looks blank is enlarged, and segmented again.

A digit that fills a small picture leaves too few pixels of the background between its strokes."""
SHEET_SIDE = 2_400
"""Larger sheets are reduced by an integer factor; their longer side keeps at least this number of pixels.

An A4 page keeps 200 to 400 dpi."""


class Sheet(NamedTuple):
    """The digits of a picture in reading order."""

    pixels: NDArray[np.uint8]
    """The digits as MNIST has them, (N, 28, 28), 0-255."""
    boxes: NDArray[np.int64]
    """Left, top, width and height of each digit in the picture, in pixels, (N, 4)."""
    lines: NDArray[np.int64]
    """The line of writing of each digit, counted from 0, (N,)."""
    touching: NDArray[np.bool_]
    """Whether a digit may be several that touch each other, (N,)."""


def as_mnist(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the digit in a picture as MNIST has it: white on black, fitted in 20×20, centre of mass in the middle.

    Args:
        picture: (H, W, C), 0-255: grey or colour, dark ink on a light background or the reverse.

    Returns:
        (28, 28), 0-255.

    Raises:
        ValueError: if there is no digit, or more than one.
    """
    digit, _ = _segment(picture, find_digit)
    return normalize(digit)


def as_sheet(picture: NDArray[np.float32]) -> Sheet:
    """Return all digits in a picture.

    Args:
        picture: as for `as_mnist`.

    Raises:
        ValueError: if there is none, or if there are too many.
    """
    digits, factor = _segment(picture, find_digits)
    digits = join_strokes(digits)
    return Sheet(
        np.stack([normalize(digit.ink) for digit in digits]),
        np.array([(digit.left, digit.top, *digit.ink.shape[::-1]) for digit in digits]) // factor,
        np.array([digit.line for digit in digits]),
        np.array([digit.touching for digit in digits]),
    )


def _segment(picture: NDArray[np.float32], find: Callable[[Ink], Found]) -> tuple[Found, int]:
    """Return what `find` finds in the ink of a picture, and the factor by which the picture was enlarged for that.

    Raises:
        ValueError: if `find` finds nothing, or too much.
    """
    try:
        return find(find_ink(picture)), 1
    except ValueError as error:
        height, width, _ = picture.shape
        factor = -(-SMALL_SIDE // min(height, width))
        if str(error) != BLANK or factor == 1:
            raise
    size, channels = (factor * width, factor * height), (picture[..., i] for i in range(picture.shape[2]))
    enlarged = [np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC)) for channel in channels]
    return find(find_ink(np.stack(enlarged, axis=2).clip(0, 255))), factor


def open_sheet(path: str) -> tuple[NDArray[np.float32], float]:
    """Return the pixels of an image file, (H, W, C), 0-255, and the length of their side in pixels of the file."""
    return open_scaled(path, SHEET_SIDE)


def read_sheet(path: str) -> Sheet:
    """Return all digits in an image file, with their boxes in pixels of the file.

    Raises:
        ValueError: if it cannot be read, or there is none.
    """
    picture, scale = open_sheet(path)
    sheet = as_sheet(picture)
    return sheet._replace(boxes=(sheet.boxes * scale).round().astype(np.int64))
