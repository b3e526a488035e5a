"""Strokes that stand close together are one digit where that is the likelier reading."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mnist_lit.reader.preprocess import as_sheet

FIVE = [[(10, 10), (6, 50), (40, 45), (58, 70), (40, 98), (8, 96)], [(12, 10), (60, 8)]]
ONES = [[(10, 5), (8, 100)], [(45, 5), (43, 100)]]


def read(*digits: list[list[tuple[int, int]]]) -> tuple[int, int]:
    """Return the number of digits that are found among some strokes, and how many of them are doubtful."""
    picture = Image.new("L", (160 * len(digits) + 60, 220), 245)
    for number, strokes in enumerate(digits):
        for stroke in strokes:
            points = [(60 + 160 * number + x, 60 + y) for x, y in stroke]
            ImageDraw.Draw(picture).line(points, fill=20, width=7, joint="curve")
    sheet = as_sheet(np.asarray(picture, dtype=np.float32)[..., None])
    return len(sheet.pixels), int(sheet.touching.sum())


def open_four(gap: int) -> list[list[tuple[int, int]]]:
    """Return a 4 whose bar ends before its stem, by a gap in percent of its height."""
    return [[(8, 5), (4, 60), (34 - gap, 60)], [(40, 25), (40, 105)]]


@pytest.mark.parametrize("gap", [0, 2, 4, 5])
def test_an_open_four_is_one_digit(gap: int) -> None:
    assert read(open_four(gap)) == (1, 0)


def test_a_five_with_a_bar_of_its_own_is_one_digit() -> None:
    assert read(FIVE) == (1, 0)


def test_two_digits_side_by_side_stay_two() -> None:
    assert read(ONES) == (2, 0)
    assert read(FIVE, open_four(2), FIVE) == (3, 0)
