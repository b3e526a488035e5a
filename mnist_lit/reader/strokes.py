"""Tell strokes of one digit from two digits: parts that stand close together are read both ways."""

from itertools import pairwise

import numpy as np
import torch

from mnist_lit.reader.normalize import normalize
from mnist_lit.reader.novelty import NoveltyNetwork
from mnist_lit.reader.several import FoundDigit

__all__ = ["join_strokes"]

MAX_GAP, MAX_WIDTH = 0.25, 0.9
"""The largest gap between two strokes of a digit, and its largest width, in units of its height."""
SURE = 2.0
"""A reading is certain if it is at least this many times as likely as the other one."""


def join_strokes(digits: list[FoundDigit]) -> list[FoundDigit]:
    """Join neighbours where one digit is the likelier reading: an open 4 has two strokes, and 11 is two digits.

    Args:
        digits: the digits of a picture in reading order.

    Returns:
        The digits in reading order; those for which the other reading is nearly as likely are marked as touching.
    """
    close = [i for i, (left, right) in enumerate(pairwise(digits)) if _may_be_one(left, right)]
    if not close:
        return digits
    joined = [_join(digits[i], digits[i + 1]) for i in close]
    pixels = [normalize(digit.ink) for digit in (*joined, *(digits[i] for i in close), *(digits[i + 1] for i in close))]
    likely = NoveltyNetwork.load().digit(torch.from_numpy(np.stack(pixels))[:, None]).view(3, -1)
    found = dict(zip(close, zip(joined, (likely[0] / (likely[1] * likely[2])).tolist(), strict=True), strict=True))
    result, i = [], 0
    while i < len(digits):
        one, ratio = found.get(i, (digits[i], 0.0))
        doubtful = 1 / SURE < ratio < SURE
        if ratio > 1:
            result.append(one._replace(touching=one.touching or doubtful))
            i += 2
        else:
            result.append(digits[i]._replace(touching=digits[i].touching or doubtful))
            i += 1
    return result


def _may_be_one(left: FoundDigit, right: FoundDigit) -> bool:
    joined = _box(left, right)
    height, width = joined[2] - joined[0], joined[3] - joined[1]
    gap = right.left - (left.left + left.ink.shape[1])
    return left.line == right.line and gap <= MAX_GAP * height and width <= MAX_WIDTH * height


def _box(left: FoundDigit, right: FoundDigit) -> tuple[int, int, int, int]:
    """Return the top, left, bottom and right of two digits."""
    return (
        min(left.top, right.top),
        min(left.left, right.left),
        max(digit.top + digit.ink.shape[0] for digit in (left, right)),
        max(digit.left + digit.ink.shape[1] for digit in (left, right)),
    )


def _join(left: FoundDigit, right: FoundDigit) -> FoundDigit:
    top, start, bottom, stop = _box(left, right)
    ink = np.zeros((bottom - top, stop - start), dtype=np.float32)
    for digit in (left, right):
        height, width = digit.ink.shape
        part = ink[digit.top - top :, digit.left - start :][:height, :width]
        np.maximum(part, digit.ink, out=part)
    return FoundDigit(ink, top, start, left.line, left.touching or right.touching)
