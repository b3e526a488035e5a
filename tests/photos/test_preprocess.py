"""Ink is told from paper, and a digit comes out as MNIST has it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MNIST
from numpy.typing import NDArray
from photographs import photograph
from PIL import Image, ImageFilter

from mnist_lit import DigitClassifier
from mnist_lit.datasets.sampling import split
from mnist_lit.photos.images import open_image
from mnist_lit.photos.preprocess import as_mnist

Picture = NDArray[np.float32]
BLANK = "no digit in it: it looks blank"
SEVERAL = "more than one digit in it: cut it out"


@pytest.fixture(scope="module")
def digits(data_dir: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Validation images (5000, 28, 28) and their labels: nothing was trained on them."""
    pixels, labels = MNIST.read(data_dir, train=True)
    _, val = split(labels, 5_000, 0)
    return pixels[val, 0].numpy(), labels[val].numpy()


def drawn(strength: NDArray[np.uint8], ink: float = 40, paper: float = 220) -> Picture:
    """Return a picture (H, W, 1) of ink, 0-255, on paper."""
    return (paper + (ink - paper) * (strength / np.float32(255)))[..., None].astype(np.float32)


def enlarged(digit: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))


def read(pictures: NDArray[np.uint8], classifier: DigitClassifier) -> NDArray[np.int64]:
    with torch.inference_mode():
        read: NDArray[np.int64] = classifier(torch.from_numpy(pictures)[:, None]).argmax(dim=1).numpy()
    return read


def difference(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Return the mean difference of pixels, 0-255, wherever rounding has put the centre."""
    moves = ((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1))
    return float(min(abs(found.astype(float) - np.roll(expected, move, (0, 1))).mean() for move in moves))


@pytest.mark.slow
def test_photographs_are_read_as_well_as_the_digits_that_they_are_of(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]], fast: DigitClassifier, tmp_path: Path
) -> None:
    """Within one point, of pictures of 60 to 2,000 pixels: turned, shadowed, noisy, coloured, in all kinds of files."""
    pixels, labels = digits[0][:2_000], digits[1][:2_000]
    chance, seen = np.random.default_rng(0), []
    for number, digit in enumerate(pixels):
        content, suffix = photograph(digit, chance)
        (path := tmp_path / f"{number}{suffix}").write_bytes(content)
        try:
            seen.append(as_mnist(open_image(str(path))))
        except ValueError:
            seen.append(np.zeros((28, 28), dtype=np.uint8))
    direct = (read(pixels, fast) == labels).mean()
    assert direct > 0.98
    assert (read(np.array(seen), fast) == labels).mean() >= direct - 0.01


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0), (90, 140), (140, 90), (120, 150)])
def test_a_digit_as_mnist_has_it_comes_out_as_it_went_in(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]], ink: float, paper: float
) -> None:
    for digit in digits[0][:50]:
        assert difference(as_mnist(drawn(digit, ink, paper)), digit) < 8


def test_a_digit_fills_a_box_of_20_pixels_with_its_mass_in_the_middle(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> None:
    for digit in digits[0][:50]:
        found = as_mnist(drawn(enlarged(digit, 300)))
        rows, columns = (np.flatnonzero(found.any(axis)) for axis in (1, 0))
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 in {19, 20}
        middle = [float((found.sum(axis) * np.arange(28)).sum() / found.sum()) for axis in (0, 1)]
        assert middle == pytest.approx([14, 14], abs=0.6)


def pen(strength: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    return np.where(strength > level, 255, 0).astype(np.uint8)


@pytest.mark.parametrize(("level", "breadth"), [(200, "thin"), (20, "thick")])
def test_thin_and_thick_strokes_come_out_as_usual(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]], level: int, breadth: str
) -> None:
    """The share of ink comes nearer to that of MNIST's own digits than by scaling alone."""
    ink = {"mnist": 0.0, "scaled": 0.0, "ours": 0.0}
    for digit in digits[0][:40]:
        large = pen(enlarged(digit, 280), level)
        if breadth == "thick":
            large = np.asarray(Image.fromarray(large).filter(ImageFilter.MaxFilter(21)))
        ink["mnist"] += digit.mean()
        ink["scaled"] += np.asarray(Image.fromarray(large).resize((28, 28), Image.Resampling.BOX)).mean()
        ink["ours"] += as_mnist(drawn(large)).mean()
    assert abs(ink["ours"] - ink["mnist"]) < 0.7 * abs(ink["scaled"] - ink["mnist"])


def beside(*digits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate(digits, axis=1)


def below(*digits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate(digits, axis=0)


@pytest.mark.parametrize("arrange", [beside, below])
def test_several_digits_are_said_to_be_so(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]], arrange: Callable[..., NDArray[np.uint8]]
) -> None:
    for first, second in zip(digits[0][:100:2], digits[0][1:100:2], strict=True):
        with pytest.raises(ValueError, match=SEVERAL):
            as_mnist(drawn(enlarged(arrange(first, second), 400)))


def test_few_single_digits_are_taken_for_several(digits: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    for digit in digits[0][:200]:
        as_mnist(drawn(enlarged(digit, 200)))


@pytest.mark.parametrize("seed", range(20))
def test_a_blank_picture_is_said_to_be_so_whatever_its_light_and_noise(seed: int) -> None:
    chance = np.random.default_rng(seed)
    height, width = chance.integers(1, 400, 2)
    slope = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j][0] * chance.uniform(0, 60)
    paper = chance.uniform(40, 190) + slope + chance.normal(0, chance.uniform(0, 20), (height, width))
    with pytest.raises(ValueError, match=BLANK):
        as_mnist(np.asarray(paper[..., None].clip(0, 255).round(), dtype=np.float32))


def test_any_picture_gives_a_digit_or_a_reason() -> None:
    """Also one of a single pixel, of noise or of one tone: nothing is divided by nothing."""
    for seed in range(500):
        chance = np.random.default_rng(seed)
        shape = (*chance.integers(1, 60, 2), int(chance.choice([1, 3])))
        picture = np.full(shape, chance.integers(0, 256), dtype=np.float32)
        if seed % 3 == 1:
            picture[:] = chance.integers(0, 256, shape)
        if seed % 3 == 2:
            picture[: chance.integers(0, shape[0] + 1), : chance.integers(0, shape[1] + 1)] = chance.integers(0, 256)
        try:
            assert as_mnist(picture).max() > 100
        except ValueError as error:
            reason = str(error)
            assert reason in {BLANK, SEVERAL}  # either may be


@pytest.mark.parametrize(
    "what", [np.s_[:, :20], np.s_[265:], np.s_[250:253], np.s_[:, 20:23]], ids=["table", "frame", "line", "margin"]
)
def test_the_end_of_the_paper_and_its_lines_are_not_taken_for_ink(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]], what: tuple[slice, ...], finished: Path
) -> None:
    classifier = DigitClassifier.load_from_checkpoint(finished / "baseline/version_0/checkpoints/best.ckpt").eval()
    pictures = [drawn(np.pad(enlarged(digit, 200), 40)) for digit in digits[0][:40]]
    expected = read(np.array([as_mnist(picture) for picture in pictures]), classifier)
    for picture in pictures:
        picture[what] = 60
    assert (read(np.array([as_mnist(picture) for picture in pictures]), classifier) == expected).mean() >= 0.9


def test_dust_is_left_out(digits: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    for digit in digits[0][:20]:
        picture = drawn(np.pad(enlarged(digit, 200), 40))
        expected = as_mnist(picture)
        picture[12:15, 250:253] = 40
        assert difference(as_mnist(picture), expected) < 3


def test_ink_is_told_from_paper_of_the_same_brightness_by_its_colour(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> None:
    strength = enlarged(digits[0][0], 200)[..., None] / np.float32(255)
    paper, ink = np.array((230, 120, 120)), np.array((60, 180, 160))
    found = as_mnist(np.asarray(paper + (ink - paper) * strength, dtype=np.float32))
    assert difference(found, as_mnist(drawn(enlarged(digits[0][0], 200)))) < 6
