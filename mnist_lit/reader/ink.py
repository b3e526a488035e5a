"""Separate ink from its background: how strong it is at each pixel, and where there is any."""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from mnist_lit.reader.lines import Mask, Pixels, find_lines

__all__ = ["BLANK", "Ink", "find_ink"]

BACKGROUND_SIZE = 48
"""Pixels of the shorter side of the reduced image in which the background is estimated."""
CLOSING_WINDOWS, CLOSING_PLATEAU = (0.1, 0.15, 0.2, 0.3, 0.45), 0.75
"""Window sizes, as fractions of the image's shorter side; a window is large enough if the one before has removed this
fraction of what it removes."""
MIN_CONTRAST = 0.1
"""Least contrast of ink, as a fraction of the background's brightness."""
SAMPLE_SIZE = 100
"""Pixels of the shorter side of the sample from which percentiles and the threshold are taken, in a picture of 512."""
BLANK = "no digit in it: it looks blank"


class Ink(NamedTuple):
    """The ink of a picture, without lines."""

    strength: Pixels
    """Contrast with the background, 0-1, (H, W)."""
    mask: Mask
    """Whether there is ink at a pixel, (H, W)."""
    background: float
    """The strength where there is no ink."""
    ruled: bool
    """Whether the paper had lines."""


def find_ink(picture: Pixels) -> Ink:
    """Return the ink of a picture, without the lines of its paper.

    Args:
        picture: (H, W, C), 0-255: grey or colour, dark ink on a light background or the reverse.

    Raises:
        ValueError: if there is no ink.
    """
    strength = np.max([_contrast(picture[..., channel]) for channel in range(picture.shape[2])], axis=0)  # (H, W)
    if min(strength.shape) >= BACKGROUND_SIZE:
        strength = ndimage.gaussian_filter(strength, 0.7)
    mask, background = _threshold(strength)
    ink = Ink(strength, mask, background, ruled=False)
    lines, certain = find_lines(mask)
    if not lines.any():
        return ink
    # Their soft edges too, except at what crosses them. Without printed lines, pencil may have a lower threshold.
    around = ndimage.maximum_filter(lines, 5) & ~ndimage.maximum_filter(mask & ~lines, 3)
    strength = np.where(lines | around, np.float32(background), strength)
    try:
        return Ink(strength, *_threshold(strength), ruled=True)
    except ValueError:
        if certain:
            raise
        return ink


def _contrast(channel: Pixels) -> Pixels:
    """Return each pixel's contrast with the background, 0-1: how much darker it is, or lighter where ink is light."""
    height, width = channel.shape
    factor = max(1, round(min(height, width) / BACKGROUND_SIZE))
    reduced = np.asarray(Image.fromarray(channel).reduce(factor))  # (h, w)
    # Ink covers less than the background, so it differs more from the local mean, and the cubes have its sign.
    differences = reduced - ndimage.uniform_filter(reduced, int(0.7 * min(reduced.shape)) or 1, mode="nearest")
    if (differences**3).sum() > 0:
        channel, reduced = 255 - channel, 255 - reduced
    background = Image.fromarray(_background(reduced)).resize((width, height), Image.Resampling.BILINEAR)
    brightness = np.maximum(np.asarray(background), 16)  # where it is darker, differences are noise
    return np.asarray((brightness - channel) / brightness)


def _background(reduced: Pixels) -> Pixels:
    """Estimate the brightness of the background, under the ink too, by a morphological closing.

    A closing removes what is dark and narrower than its window: the strokes if it is wider than they are, but shadows
    too if it is much wider. So it is the window after the first one that removes little more than the one before.
    """
    smooth = ndimage.gaussian_filter(reduced, 0.5)
    margin = int(CLOSING_WINDOWS[-1] * min(reduced.shape) / 2) + 1
    # Extrapolate gradients of the light beyond the edges: towards a darker edge, the background would look like ink.
    padded = np.pad(smooth, margin, "reflect", reflect_type="odd")
    previous, enough = 0.0, False
    for fraction in CLOSING_WINDOWS:
        window = max(3, int(fraction * min(reduced.shape)))
        outer, inner = max(0, margin - window), min(margin, window)  # what a closing depends on: less is quicker
        part = padded[outer or None : -outer or None, outer or None : -outer or None]
        closed = ndimage.grey_closing(part, size=(window, window), mode="nearest")[inner:-inner, inner:-inner]
        # To the fourth power, since shadows are large but have less contrast.
        removed = float((((closed - smooth) / np.maximum(closed, 16)) ** 4).sum())
        if enough:
            break
        enough, previous = bool(previous) and previous >= CLOSING_PLATEAU * removed, removed
    return np.asarray(ndimage.gaussian_filter(closed, 1))


def _threshold(strength: Pixels) -> tuple[Mask, float]:
    """Return where there is ink, and the strength where there is none.

    Raises:
        ValueError: if there is no ink.
    """
    step = max(1, min(strength.shape) // SAMPLE_SIZE)
    sample = strength[::step, ::step]
    low, background = np.percentile(sample, (5, 30))  # at most two thirds of a picture are ink
    noise = 4 * (background - low)
    mask = strength > _otsu_threshold(sample.clip(max(background + noise, 0), 1))
    if not mask.any() or strength[mask].mean() - background < max(MIN_CONTRAST, 1.35 * noise):
        raise ValueError(BLANK)
    return mask, float(background)


def _otsu_threshold(values: Pixels) -> float:
    """Return the threshold of values, 0-1, that maximises the variance between the two classes (Otsu 1979)."""
    counts = np.bincount((256 * values).astype(np.int64).clip(0, 255).ravel(), minlength=256)
    centres = (np.arange(256) + 0.5) / 256
    below = counts.cumsum()[:-1]
    above = values.size - below
    sums = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(np.nan_to_num(variance).argmax() + 1) / 256
