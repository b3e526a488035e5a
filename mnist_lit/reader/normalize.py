"""Normalise a segmented digit as MNIST's are: its size, stroke width and position."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mnist_lit.reader.lines import Pixels

__all__ = ["normalize"]

IMAGE_SIZE, DIGIT_SIZE = 28, 20
"""Pixels of a side of MNIST's images, and of the longer side of the digit in them."""
MIN_STROKE, MEDIAN_STROKE, MAX_STROKE = 1.3, 1.95, 3.2
"""Stroke widths in MNIST, in its pixels, from area and perimeter: 5th percentile, median and 95th percentile."""
MIN_STROKE_SCALE = 2
"""Pixels per pixel of MNIST's below which the resolution is too low to measure the stroke width."""


def normalize(digit: Pixels) -> NDArray[np.uint8]:
    """Return a digit white on black, fitted in 20×20, with its centre of mass in the middle.

    The method is LeCun's (1998, doi:10.1109/5.726791, III.A); the stroke width is changed only if it is outside MNIST's
    range.

    Args:
        digit: ink, 0-1, in its bounding box, (h, w).

    Returns:
        (28, 28), 0-255.
    """
    return _centre(_normalise_stroke_width(digit))


def _normalise_stroke_width(digit: Pixels) -> Pixels:
    """Dilate or erode a digit (h, w), 0-1, to MNIST's median stroke width if its own is outside MNIST's range."""
    scale = max(digit.shape) / DIGIT_SIZE
    if scale < MIN_STROKE_SCALE:
        return digit
    mask = np.pad(digit > 0.5, 1)
    perimeter = (mask & ~ndimage.minimum_filter(mask, 3)).sum()
    width = 2 * mask.sum() / perimeter / scale  # a stroke has two sides
    change = abs(MEDIAN_STROKE - width) / 2 * scale  # on each side
    if width < MIN_STROKE:
        mask = ndimage.distance_transform_edt(~np.pad(mask, int(change))) <= change
    elif width > MAX_STROKE:
        mask = ndimage.distance_transform_edt(mask) > change
    else:
        return digit
    return np.asarray(mask, dtype=np.float32)


def _centre(digit: Pixels) -> NDArray[np.uint8]:
    """Scale a digit to a longer side of 20 pixels, and place its centre of mass in the middle of 28×28."""
    scale = DIGIT_SIZE / max(digit.shape)
    if scale != 1:
        height, width = (max(1, round(scale * side)) for side in digit.shape)
        resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
        digit = np.asarray(Image.fromarray(digit).resize((width, height), resampling)).clip(0, 1)  # (h, w)
    top, left = (
        min(max(round(IMAGE_SIZE / 2 - centre), 0), IMAGE_SIZE - side)
        for centre, side in zip(ndimage.center_of_mass(digit), digit.shape, strict=True)
    )
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = (255 * digit).round()
    return image
