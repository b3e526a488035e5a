"""Find every digit in the ink of a picture, in reading order."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

from mnist_lit.reader.digits import MIN_COMPONENT_INK, MIN_DIGIT_SIZE, crop_ink, is_cut, is_line
from mnist_lit.reader.ink import BLANK, Ink
from mnist_lit.reader.lines import EIGHT_CONNECTED, Floats, Mask, Numbers, Pixels

__all__ = ["FoundDigit", "find_digits"]

MIN_HEIGHT, MAX_DISTANCE = 0.5, 0.3
"""Least height of a component that is a digit by itself, and largest distance from a digit to a component that belongs
to it, such as the bar of a 5, in units of the median height of the digits in the picture."""
MIN_OVERLAP, MAX_GAP, MAX_HEIGHT = 0.5, 0.15, 1.6
"""Two tall components are one digit if at least MIN_OVERLAP of the narrower one's width is above or below the other,
and the gap between them and their height together are at most MAX_GAP and MAX_HEIGHT median heights."""
MIN_TOUCHING, MAX_SINGLE = 1.2, 1.5
"""Widths in units of the height: the least of digits that touch, and the largest of what may be a single digit."""
MAX_BRIDGE, MIN_PART = 1.7, 0.6
"""Limits for splitting digits that touch: the most ink in the column of pixels where they are split, in units of the
stroke width, and the least height of each part in units of their height together."""
MAX_DIGITS = 3_000
"""Largest number of digits in a picture, since all pairs are compared. A photograph of a carpet has more."""
MAX_PAIRS = 2_000_000
"""Largest number of pairs of components that are compared at once."""
MAX_SHIFT = 0.6
"""Largest shift of a digit, up or down, from the previous one in its line, in units of the median height."""


class FoundDigit(NamedTuple):
    """A digit in a picture."""

    ink: Pixels
    """The ink of the digit, 0-1, (height, width)."""
    top: int
    left: int
    line: int
    """The number of its line of writing, counted from 0."""
    touching: bool
    """Whether it may be several digits that touch each other."""


class Boxes(NamedTuple):
    """Rows and columns of components, (N,) each."""

    top: Numbers
    bottom: Numbers
    left: Numbers
    right: Numbers

    def take(self, which: Numbers) -> "Boxes":
        """Return some of the boxes."""
        return Boxes(*(side[which] for side in self))

    @property
    def height(self) -> Numbers:
        """Heights in pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> Numbers:
        """Widths in pixels."""
        return self.right - self.left

    def gaps(self, others: "Boxes") -> tuple[Numbers, Numbers]:
        """Return the vertical and horizontal distances from other boxes, (N, M), negative where they overlap."""
        vertical = np.maximum(self.top[:, None] - others.bottom, others.top - self.bottom[:, None])
        horizontal = np.maximum(self.left[:, None] - others.right, others.left - self.right[:, None])
        return vertical, horizontal


def find_digits(ink: Ink) -> list[FoundDigit]:
    """Return all digits, in lines of writing from top to bottom, and from left to right.

    Raises:
        ValueError: if there is none, or if there are too many.
    """
    labels, _ = ndimage.label(ndimage.maximum_filter(ink.mask, 3), EIGHT_CONNECTED)  # closes small gaps in a stroke
    labels *= ink.mask
    slices = ndimage.find_objects(labels)
    numbers = [
        i + 1
        for i, box in enumerate(slices)
        if box
        and not is_line(labels[box] == i + 1, box, labels.shape)
        and not (ink.ruled and is_cut(box, labels.shape))
    ]
    if not numbers:
        raise ValueError(BLANK)
    sides = [(part.start, part.stop) for i in numbers for part in slices[i - 1]]
    boxes = Boxes(*np.array(sides, dtype=np.int64).reshape(-1, 4).T)
    amounts = np.bincount(labels.ravel(), ink.strength.ravel())[numbers]
    edge = ink.mask & ~ndimage.minimum_filter(ink.mask, 3, mode="constant")
    outlines = np.bincount(labels[edge], minlength=len(slices) + 1)[numbers]
    parts: list[tuple[int, int, Mask]] = []
    for members in _group(boxes, amounts, outlines):
        of = boxes.take(members)
        top, left = of.top.min(), of.left.min()
        digit = np.isin(labels[top : of.bottom.max(), left : of.right.max()], [numbers[i] for i in members])
        parts += [(int(top), int(left) + start, digit[:, start:stop]) for start, stop in _split(digit)]
    if not parts:
        raise ValueError(BLANK)
    return _in_reading_order([_found(ink, *part) for part in parts])


def _found(ink: Ink, top: int, left: int, mask: Mask) -> FoundDigit:
    rows = np.flatnonzero(mask.any(axis=1))
    mask = mask[rows[0] : rows[-1] + 1]
    height, width = mask.shape
    top += int(rows[0])
    digit = crop_ink(ink, (slice(top, top + height), slice(left, left + width)), mask)
    return FoundDigit(digit, top, left, 0, width > MAX_SINGLE * height)


def _group(boxes: Boxes, amounts: NDArray[Any], outlines: NDArray[Any]) -> Iterator[Numbers]:
    """Yield the components of each digit, given the boxes, the ink and the pixels of the outline of all components.

    Raises:
        ValueError: if there are too many.
    """
    order = boxes.height.argsort()
    half = np.searchsorted(outlines[order].cumsum(), outlines.sum() / 2)
    usual = boxes.height[order][half]  # half of all outlines are those of taller components; a blot has a short one
    tall = np.flatnonzero(boxes.height >= max(MIN_HEIGHT * usual, MIN_DIGIT_SIZE))
    if len(tall) > MAX_DIGITS:
        raise ValueError(f"more than {MAX_DIGITS:,} digits in it: crop it")
    digits = boxes.take(tall)
    vertical, horizontal = digits.gaps(digits)
    same = (-horizontal >= MIN_OVERLAP * np.minimum(digits.width[:, None], digits.width)) & (
        vertical <= MAX_GAP * usual
    )
    together = np.maximum(digits.bottom[:, None], digits.bottom) - np.minimum(digits.top[:, None], digits.top)
    _, digit_of = connected_components(same & (together <= MAX_HEIGHT * usual), directed=False)
    small = np.setdiff1d(np.arange(len(amounts)), tall)
    small = small[amounts[small] >= MIN_COMPONENT_INK * amounts[tall].min(initial=np.inf)]  # without dust
    members, of = [tall], [digit_of]
    for part in np.array_split(small, 1 + len(small) * len(tall) // MAX_PAIRS):
        if len(part) and len(tall):
            distances = np.maximum(*boxes.take(part).gaps(digits))
            nearest = distances.argmin(axis=1)
            near = distances.min(axis=1) < MAX_DISTANCE * usual
            near &= amounts[part] >= MIN_COMPONENT_INK * amounts[tall[nearest]]
            members.append(part[near])
            of.append(digit_of[nearest[near]])
    all_members, digit_of = np.concatenate(members), np.concatenate(of)
    for number in np.unique(digit_of):
        yield all_members[digit_of == number]


def _split(digit: Mask) -> list[tuple[int, int]]:
    """Return the columns of each digit in a component: more than one where it is clear that digits touch."""
    height, width = digit.shape
    if width < MIN_TOUCHING * height:
        return [(0, width)]
    edge = digit & ~ndimage.minimum_filter(digit, 3, mode="constant")
    stroke = 2 * digit.sum() / edge.sum()  # a stroke has two sides
    middle = np.arange(round(0.25 * width), round(0.75 * width))
    bridge = digit[:, middle].sum(axis=0)
    best = np.lexsort((abs(middle - width / 2), bridge))[0]
    cut = int(middle[best])
    heights = [np.ptp(np.flatnonzero(part.any(axis=1))) + 1 for part in (digit[:, :cut], digit[:, cut:])]
    if bridge[best] > MAX_BRIDGE * stroke or min(heights) < MIN_PART * height:
        return [(0, width)]
    parts = []
    for side in (slice(cut), slice(cut, width)):
        columns = np.flatnonzero(digit[:, side].any(axis=0)) + (side.start or 0)  # without a gap between components
        left, right = int(columns[0]), int(columns[-1]) + 1
        parts += [(left + start, left + stop) for start, stop in _split(digit[:, left:right])]
    return parts


def _in_reading_order(digits: list[FoundDigit]) -> list[FoundDigit]:
    """Return digits in lines of writing, which may be slanted."""
    x = np.array([digit.left + digit.ink.shape[1] / 2 for digit in digits])
    y = np.array([digit.top + digit.ink.shape[0] / 2 for digit in digits])
    usual = float(np.median([digit.ink.shape[0] for digit in digits]))
    before, after = _neighbours(x, y, usual)
    if len(before):
        y -= float(np.median((y[after] - y[before]) / (x[after] - x[before]))) * x
    before, after = _neighbours(x, y, usual)
    linked = np.zeros((len(x), len(x)), dtype=bool)
    linked[before, after] = True
    count, line_of = connected_components(linked, directed=False)
    heights = [y[line_of == line].mean() for line in range(count)]
    rank = np.argsort(np.argsort(heights))[line_of]
    return [digits[i]._replace(line=int(rank[i])) for i in np.lexsort((x, rank))]


def _neighbours(x: Floats, y: Floats, usual: float) -> tuple[Numbers, Numbers]:
    """Return pairs of digits that follow each other in a line."""
    right = (x[None] > x[:, None]) & (abs(y[None] - y[:, None]) < MAX_SHIFT * usual)  # (N, N)
    next_one = np.where(right, x[None], np.inf).argmin(axis=1)
    before = np.flatnonzero(right.any(axis=1))
    return before, next_one[before]
