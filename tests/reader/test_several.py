"""All digits of a picture are found, in reading order."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from reader.helpers.sheets import PAPERS, photographed, sheet, written

from mnist_lit import DigitClassifier
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.reader.ink import BLANK, find_ink
from mnist_lit.reader.several import FoundDigit, find_digits

Digits = tuple[NDArray[np.uint8], NDArray[np.int64]]


@pytest.fixture(scope="module")
def digits(data_dir: Path) -> Digits:
    """Training images (1000, 28, 28) and their labels."""
    pixels, labels = MNIST.read(data_dir, train=True)
    return pixels[:1_000, 0].numpy(), labels[:1_000].numpy()


def read(picture: Image.Image) -> list[FoundDigit]:
    return find_digits(find_ink(np.asarray(picture, dtype=np.float32)[..., None]))


def box(digit: FoundDigit) -> tuple[int, int, int, int]:
    height, width = digit.ink.shape
    return digit.left, digit.top, width, height


@pytest.mark.parametrize("paper", [paper for paper in PAPERS if paper != "squared"])
@pytest.mark.parametrize("degrees", [0, -1, 3])
def test_digits_are_found_in_reading_order_on_any_paper(paper: str, degrees: float, digits: Digits) -> None:
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, 1_000, (4, 6))
    ink, centres = written([[digits[0][i] for i in line] for line in chosen], rng)
    found = find_digits(find_ink(photographed(ink, sheet(ink.shape, paper, 90), rng, degrees)))
    assert [digit.line for digit in found] == [line for line in range(4) for _ in range(6)]
    height, width = ink.shape
    angle = np.radians(degrees)
    for digit, (row, column) in zip(found, [centre for line in centres for centre in line], strict=True):
        down, right = row - height / 2, column - width / 2
        expected = (
            height / 2 + down * np.cos(angle) - right * np.sin(angle),
            width / 2 + right * np.cos(angle) + (down * np.sin(angle)),
        )
        left, top, wide, tall = box(digit)
        assert np.allclose((top + tall / 2, left + wide / 2), expected, atol=12)
        assert not digit.touching


def test_nearly_all_digits_are_found_on_squared_paper(digits: Digits) -> None:
    """A stroke may lie on one of its lines."""
    rng, found = np.random.default_rng(0), []
    for degrees in (0, -1, 3):
        ink, _ = written([list(digits[0][24 * degrees : 24 * degrees + 6]) for _ in range(4)], rng)
        found.append(len(find_digits(find_ink(photographed(ink, sheet(ink.shape, "squared", 90), rng, degrees)))))
    assert np.allclose(found, 24, atol=2)


def test_lines_of_a_slanted_photograph_are_kept_apart(digits: Digits) -> None:
    rng = np.random.default_rng(0)
    ink, _ = written([list(digits[0][part]) for part in (slice(9), slice(9, 18), slice(18, 22))], rng)
    found = find_digits(find_ink(photographed(ink, np.zeros(ink.shape), rng, 12)))
    assert [digit.line for digit in found] == [0] * 9 + [1] * 9 + [2] * 4


def test_parts_of_a_digit_belong_to_it_and_dust_to_none() -> None:
    picture = Image.new("L", (300, 120), 230)
    draw = ImageDraw.Draw(picture)
    draw.arc((30, 40, 80, 100), 200, 160, fill=20, width=8)  # a 5 without its bar
    draw.line((45, 28, 85, 28), fill=20, width=8)  # its bar, apart
    draw.rectangle((150, 20, 158, 100), fill=20)
    draw.line((220, 20, 220, 50), fill=20, width=8)  # a broken 1
    draw.line((220, 58, 220, 100), fill=20, width=8)
    draw.point([(120, 15), (270, 110), (190, 60)], fill=20)
    found = read(picture)
    assert [box(digit)[0] for digit in found] == pytest.approx([30, 150, 216], abs=3)
    assert [box(digit)[3] for digit in found] == pytest.approx([77, 81, 81], abs=5)


def test_digits_that_touch_are_split(digits: Digits, fast: DigitClassifier) -> None:
    """Where it is clear; some others are marked."""
    import torch

    from mnist_lit.reader.normalize import normalize

    rng, right, unnoticed = np.random.default_rng(0), 0, 0
    for _ in range(40):
        pair = rng.integers(0, 1_000, 2)
        ink = np.zeros((200, 240))
        for left, digit in zip((60, 96), digits[0][pair], strict=True):
            scaled = np.asarray(Image.fromarray(digit).resize((60, 60), Image.Resampling.BICUBIC)) / 255
            ink[70:130, left : left + 60] = np.maximum(ink[70:130, left : left + 60], scaled)
        found = find_digits(find_ink(photographed(ink, np.zeros(ink.shape), rng)))
        pixels = torch.from_numpy(np.stack([normalize(digit.ink) for digit in found]))[:, None]
        with torch.inference_mode():
            answers = fast(pixels).argmax(dim=1).tolist()
        right += answers == digits[1][pair].tolist()
        unnoticed += len(found) != 2 and not any(digit.touching for digit in found)
    assert right >= 32
    assert unnoticed <= 2


def test_a_wide_digit_is_not_split() -> None:
    picture = Image.new("L", (300, 200), 230)
    ImageDraw.Draw(picture).ellipse((50, 50, 210, 150), outline=20, width=10)
    (zero,) = read(picture)
    assert box(zero) == pytest.approx((50, 50, 161, 101), abs=3)
    assert zero.touching, "it is wider than digits are"


def test_a_picture_with_too_many_components_is_refused() -> None:
    """Comparing all pairs of them would take much memory."""
    picture = np.full((1_000, 1_000), 230, dtype=np.uint8)
    for row in range(10, 990, 16):
        for column in range(10, 990, 16):
            picture[row : row + 10, column : column + 4] = 20
    with pytest.raises(ValueError, match=r"more than 3,000 digits in it: crop it"):
        read(Image.fromarray(picture))


def test_no_digits_in_a_blank_picture() -> None:
    with pytest.raises(ValueError, match=BLANK):
        read(Image.new("L", (300, 200), 230))
    speck = Image.new("L", (300, 200), 230)
    ImageDraw.Draw(speck).rectangle((100, 100, 104, 104), fill=20)
    with pytest.raises(ValueError, match=BLANK):
        read(speck)


@pytest.mark.parametrize("margin", [0, 2, 20])
def test_a_line_of_digits_that_is_cropped_tightly_is_read(margin: int, digits: Digits) -> None:
    """A digit is as tall as the picture then, and thin compared with its width."""
    ink, _ = written([list(digits[0][:12])], np.random.default_rng(0))
    rows, columns = (np.flatnonzero((ink > 0.3).any(axis)) for axis in (1, 0))
    cropped = np.pad(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], margin)
    assert len(read(Image.fromarray((230 - 200 * cropped).astype(np.uint8)))) == 12


def test_a_blot_does_not_hide_the_digits(digits: Digits) -> None:
    ink, _ = written([list(digits[0][:10]), list(digits[0][10:20])], np.random.default_rng(0))
    picture = Image.fromarray((230 - 200 * ink).astype(np.uint8))
    large = Image.new("L", (picture.width, picture.height + 300), 230)
    large.paste(picture)
    ImageDraw.Draw(large).ellipse((300, 400, 500, 600), fill=20)
    assert len(read(large)) >= 20


@pytest.mark.parametrize("text", ["00", "88", "2580", "000"])
@pytest.mark.parametrize("width", [3, 6])
def test_digits_of_straight_strokes_are_no_table(text: str, width: int) -> None:
    picture = Image.new("L", (100 * len(text) + 40, 200), 230)
    for place, name in enumerate(text):
        left, right, rows = 40 + 100 * place, 100 + 100 * place, (40, 100, 160)
        a, b, c, d, e, f = ((x, y) for y in rows for x in (left, right))
        strokes = {"0": [a, b, f, e, a], "2": [a, b, d, c, e, f], "5": [b, a, c, d, f, e], "8": [a, b, f, e, a, c, d]}
        ImageDraw.Draw(picture).line(strokes[name], fill=20, width=width)
    assert len(read(picture)) == len(text)
