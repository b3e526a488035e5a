"""Frames, tables, ruled and squared paper are found; strokes of digits are not taken for lines."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from reader.helpers.sheets import PAPERS, sheet, written
from scipy import ndimage

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.reader.lines import find_lines

Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def digits(data_dir: Path) -> list[NDArray[np.uint8]]:
    """Training images (28, 28), in the order of the data set."""
    pixels, _ = MNIST.read(data_dir, train=True)
    return [picture[0].numpy() for picture in pixels[:300]]


def turned(image: NDArray[np.float64], degrees: float) -> Mask:
    return np.asarray(Image.fromarray(image.astype(np.float32)).rotate(degrees, Image.Resampling.BILINEAR)) > 0.5


@pytest.mark.parametrize("paper", PAPERS[1:])
@pytest.mark.parametrize("degrees", [0, -1, 3])
@pytest.mark.parametrize("thickness", [2, 4])
def test_lines_are_found_and_the_ink_that_crosses_them_is_left(
    paper: str, degrees: float, thickness: int, digits: list[NDArray[np.uint8]]
) -> None:
    rng = np.random.default_rng(0)
    kept, found = [], []
    for number in range(10):
        ink, _ = written([digits[number : number + 1]], rng)  # (270, 270)
        ink = np.roll(ink, (25 if paper in {"ruled", "squared"} else 0, 0), (0, 1))  # onto a line
        digit, lines = turned(ink, degrees), turned(sheet((270, 270), paper, 90, thickness), degrees)
        inner = slice(10, -10)  # at the edges, the turned paper ends
        removed, certain = find_lines((digit | lines)[inner, inner])
        assert certain
        digit, lines = digit[inner, inner], lines[inner, inner]
        kept.append(1 - (removed & digit & ~lines).sum() / digit.sum())
        alone = lines & ~ndimage.maximum_filter(digit, 15)
        found.append((removed & alone).sum() / alone.sum())
    assert np.mean(found) > 0.97
    assert np.mean(kept) > (0.9 if paper == "squared" else 0.97)


@pytest.mark.parametrize("margin", [0, 1, 3, 20])
def test_strokes_of_a_digit_are_no_lines(margin: int, digits: list[NDArray[np.uint8]]) -> None:
    """Not even if it is cropped tightly, or to a square."""
    taken = 0
    for picture in digits:
        mask = np.asarray(Image.fromarray(picture).resize((112, 112), Image.Resampling.BICUBIC)) > 127
        (box,) = ndimage.find_objects(mask.astype(int))
        taken += int(find_lines(np.pad(mask[box], margin))[0].any())
    assert taken <= 3  # of 300


@pytest.mark.parametrize(
    "strokes",
    [
        [(10, 0, 10, 99)],  # 1
        [(0, 3, 59, 3), (59, 3, 20, 99)],  # 7
        [(10, 0, 3, 60), (3, 60, 59, 60), (45, 0, 45, 99)],  # 4
        [(3, 3, 56, 3), (56, 3, 56, 96), (56, 96, 3, 96), (3, 96, 3, 3)],  # 0
        [(3, 3, 56, 3), (56, 3, 56, 96), (56, 96, 3, 96), (3, 96, 3, 3), (3, 50, 56, 50)],  # 8
        [(56, 3, 3, 3), (3, 3, 3, 96), (3, 96, 56, 96), (56, 96, 56, 50), (56, 50, 3, 50)],  # 6
    ],
)
def test_digits_of_straight_strokes_are_left(strokes: list[tuple[int, int, int, int]]) -> None:
    image = Image.new("L", (60, 100))
    for stroke in strokes:
        ImageDraw.Draw(image).line(stroke, fill=255, width=6)
    lines, certain = find_lines(np.asarray(image) > 0)
    assert not (lines.any() and certain)
