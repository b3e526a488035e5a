"""Find the digit in the ink of a picture, by connected components."""

import numpy as np
from scipy import ndimage

from mnist_lit.reader.ink import BLANK, Ink
from mnist_lit.reader.lines import EIGHT_CONNECTED, Mask, Pixels

__all__ = ["MIN_COMPONENT_INK", "MIN_DIGIT_SIZE", "crop_ink", "find_digit", "is_cut", "is_line"]

Box = tuple[slice, ...]

MIN_DIGIT_SIZE, MIN_COMPONENT_INK = 8, 0.03
"""Pixels of a digit's longer side, and a component's ink as a fraction of the largest one's: anything less is dust."""


def find_digit(ink: Ink) -> Pixels:
    """Return the ink of the only digit, 0-1, cropped to its bounding box.

    Raises:
        ValueError: if there is no digit, or more than one.
    """
    mask = _digit_components(ink)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return crop_ink(ink, box, mask[box])


def crop_ink(ink: Ink, box: Box, digit: Mask) -> Pixels:
    """Return the ink of a digit in a box, 0-1."""
    strength = ink.strength[box]
    full = np.percentile(strength[digit], 75)
    dilated = ndimage.maximum_filter(digit, 3, mode="constant")  # includes the soft edges of strokes
    scaled = ((strength - ink.background) / (full - ink.background)).clip(0, 1)
    return np.asarray(scaled * dilated, dtype=np.float32)


def _digit_components(ink: Ink) -> Mask:
    """Return the mask of the digit's connected components.

    A digit may have several components, such as a 5 and its bar. One that is at least half as tall as the largest, or
    twice as tall, and separate from it is another digit. On ruled paper, what the picture's edge cuts off is not part
    of it.

    Raises:
        ValueError: as above.
    """
    mask, strength = ink.mask, ink.strength
    gap = max(1, round(min(mask.shape) / 100))  # dilation closes small gaps in a stroke
    crop = tuple(
        slice(max(places[0] - gap, 0), places[-1] + 1 + gap) for places in (np.flatnonzero(mask.any(k)) for k in (1, 0))
    )
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[crop], count = ndimage.label(ndimage.maximum_filter(mask[crop], 2 * gap + 1), EIGHT_CONNECTED)
    labels *= mask
    amounts = np.bincount(labels[mask], strength[mask], count + 1)[1:]
    boxes = ndimage.find_objects(labels)
    candidates = [i for i in range(count) if not is_line(labels[boxes[i]] == i + 1, boxes[i], mask.shape)]
    candidates = candidates or list(range(count))
    main = max(candidates, key=lambda i: amounts[i])
    y, x = boxes[main]
    size = max(y.stop - y.start, x.stop - x.start)
    if size < MIN_DIGIT_SIZE:
        raise ValueError(BLANK)
    components = np.zeros(count + 1, dtype=bool)
    for i in candidates:
        rows, columns = boxes[i]
        cut = ink.ruled and is_cut(boxes[i], mask.shape)
        if amounts[i] < MIN_COMPONENT_INK * amounts[main] or (cut and i != main):
            continue
        vertical = max(rows.start - y.stop, y.start - rows.stop)  # distances from the largest component
        horizontal = max(columns.start - x.stop, x.start - columns.stop)
        shorter, taller = sorted((rows.stop - rows.start, y.stop - y.start))
        if i != main and shorter >= 0.5 * taller and (horizontal > 0.1 * taller or vertical > 0.15 * taller):
            raise ValueError("more than one digit in it: crop it to one, or give --several")
        if max(vertical, horizontal) < 0.3 * size:
            components[i + 1] = True
    return np.asarray(components[labels])


def is_cut(box: Box, shape: tuple[int, ...]) -> bool:
    """Return whether a component touches the picture's edge."""
    return any(part.start == 0 or part.stop == side for part, side in zip(box, shape, strict=True))


def is_line(component: Mask, box: Box, shape: tuple[int, ...]) -> bool:
    """Return whether a component crosses the whole picture, and is thin or along an edge: ruled paper or a frame."""
    for across, along in ((0, 1), (1, 0)):
        sides = box[across].start < 2, box[across].stop > shape[across] - 2  # at the picture's edge, or nearly
        length = component.any(axis=across).mean() * component.shape[along]
        long = length > max(0.8 * shape[along], 0.5 * max(shape))  # in a strip, digits are as tall as the picture
        thin = component.shape[across] < 0.1 * min(shape)
        edges = component[[0, -1]] if across == 0 else component[:, [0, -1]].T  # (2, length)
        framed = any(side and edge.sum() > 0.8 * shape[along] for side, edge in zip(sides, edges, strict=True))
        if (long and thin) or framed:
            return True
    return False
