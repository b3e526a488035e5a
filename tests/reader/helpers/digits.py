"""Validation digits, and pictures of them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Digits", "difference", "drawn", "enlarged"]

Digits = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, 28, 28) and their labels (N,)."""


def drawn(strength: NDArray[np.uint8], ink: float = 40, paper: float = 220) -> NDArray[np.float32]:
    """Return a picture (H, W, 1) with ink of some strength, 0-255, on a uniform background."""
    return (paper + (ink - paper) * (strength / np.float32(255)))[..., None].astype(np.float32)


def enlarged(digit: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a digit scaled to (side, side)."""
    return np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))


def difference(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference, 0-255, up to a shift by one pixel: the centre is rounded."""
    shifts = ((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1))
    return float(min(abs(found.astype(float) - np.roll(expected, shift, (0, 1))).mean() for shift in shifts))
