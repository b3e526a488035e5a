"""Digits are segmented and normalised as MNIST's are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from reader.helpers.photographs import photograph

from mnist_lit import DigitClassifier
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.images import open_image
from mnist_lit.datasets.sampling import split
from mnist_lit.reader.preprocess import as_mnist

Pixels = NDArray[np.float32]
Digits = tuple[NDArray[np.uint8], NDArray[np.int64]]
BLANK = "no digit in it: it looks blank"
SEVERAL = "more than one digit in it: crop it to one, or give --several"


@pytest.fixture(scope="module")
def digits(data_dir: Path) -> Digits:
    """Validation images (5000, 28, 28) and their labels, not used for training."""
    pixels, labels = MNIST.read(data_dir, train=True)
    _, val = split(labels, 5_000, 0)
    return pixels[val, 0].numpy(), labels[val].numpy()


def drawn(strength: NDArray[np.uint8], ink: float = 40, paper: float = 220) -> Pixels:
    """Return a picture (H, W, 1) with ink of some strength, 0-255, on a uniform background."""
    return (paper + (ink - paper) * (strength / np.float32(255)))[..., None].astype(np.float32)


def enlarged(digit: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))


def classify(pictures: NDArray[np.uint8], classifier: DigitClassifier) -> NDArray[np.int64]:
    with torch.inference_mode():
        classes: NDArray[np.int64] = classifier(torch.from_numpy(pictures)[:, None]).argmax(dim=1).numpy()
    return classes


def difference(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference, 0-255, up to a shift by one pixel: the centre is rounded."""
    shifts = ((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1))
    return float(min(abs(found.astype(float) - np.roll(expected, shift, (0, 1))).mean() for shift in shifts))


@pytest.mark.slow
def test_accuracy_on_photographs_is_that_on_their_digits(digits: Digits, fast: DigitClassifier, tmp_path: Path) -> None:
    """To within one percentage point: 60 to 2,000 pixels, rotated, shadowed, noisy, coloured, in several formats."""
    pixels, labels = digits[0][:2_000], digits[1][:2_000]
    rng, preprocessed = np.random.default_rng(0), []
    for number, digit in enumerate(pixels):
        content, suffix = photograph(digit, rng)
        (path := tmp_path / f"{number}{suffix}").write_bytes(content)
        try:
            preprocessed.append(as_mnist(open_image(str(path))))
        except ValueError:
            preprocessed.append(np.zeros((28, 28), dtype=np.uint8))
    accuracy = (classify(pixels, fast) == labels).mean()
    assert accuracy > 0.98
    assert (classify(np.array(preprocessed), fast) == labels).mean() >= accuracy - 0.01


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0), (90, 140), (140, 90), (120, 150)])
def test_mnist_digits_are_unchanged(digits: Digits, ink: float, paper: float) -> None:
    for digit in digits[0][:50]:
        assert difference(as_mnist(drawn(digit, ink, paper)), digit) < 8


def test_digit_is_scaled_to_20_pixels_and_centred_by_mass(digits: Digits) -> None:
    for digit in digits[0][:50]:
        found = as_mnist(drawn(enlarged(digit, 300)))
        rows, columns = (np.flatnonzero(found.any(axis)) for axis in (1, 0))
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 in {19, 20}
        centre = [float((found.sum(axis) * np.arange(28)).sum() / found.sum()) for axis in (0, 1)]
        assert centre == pytest.approx([14, 14], abs=0.6)


@pytest.mark.parametrize(("level", "width"), [(200, "thin"), (20, "thick")])
def test_thin_and_thick_strokes_are_normalised(digits: Digits, level: int, width: str) -> None:
    """The amount of ink is closer to that of MNIST's digits than after scaling alone."""
    ink = {"mnist": 0.0, "scaled": 0.0, "ours": 0.0}
    for digit in digits[0][:40]:
        large = np.where(enlarged(digit, 280) > level, 255, 0).astype(np.uint8)
        if width == "thick":
            large = np.asarray(Image.fromarray(large).filter(ImageFilter.MaxFilter(21)))
        ink["mnist"] += digit.mean()
        ink["scaled"] += np.asarray(Image.fromarray(large).resize((28, 28), Image.Resampling.BOX)).mean()
        ink["ours"] += as_mnist(drawn(large)).mean()
    assert abs(ink["ours"] - ink["mnist"]) < 0.7 * abs(ink["scaled"] - ink["mnist"])


@pytest.mark.parametrize("axis", [0, 1])
def test_several_digits_are_rejected(digits: Digits, axis: int) -> None:
    for first, second in zip(digits[0][:100:2], digits[0][1:100:2], strict=True):
        with pytest.raises(ValueError, match=SEVERAL):
            as_mnist(drawn(enlarged(np.concatenate((first, second), axis), 400)))


def test_single_digits_are_not_rejected(digits: Digits) -> None:
    for digit in digits[0][:200]:
        as_mnist(drawn(enlarged(digit, 200)))


@pytest.mark.parametrize("seed", range(20))
def test_blank_pictures_with_gradients_and_noise_are_rejected(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 400, 2)
    gradient = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j][0] * rng.uniform(0, 60)
    paper = rng.uniform(40, 190) + gradient + rng.normal(0, rng.uniform(0, 20), (height, width))
    with pytest.raises(ValueError, match=BLANK):
        as_mnist(np.asarray(paper[..., None].clip(0, 255).round(), dtype=np.float32))


def test_any_picture_gives_a_digit_or_a_reason() -> None:
    """Also a single pixel, noise or a uniform tone: there is no division by zero."""
    for seed in range(500):
        rng = np.random.default_rng(seed)
        shape = (*rng.integers(1, 60, 2), int(rng.choice([1, 3])))
        picture = np.full(shape, rng.integers(0, 256), dtype=np.float32)
        if seed % 3 == 1:
            picture[:] = rng.integers(0, 256, shape)
        if seed % 3 == 2:
            picture[: rng.integers(0, shape[0] + 1), : rng.integers(0, shape[1] + 1)] = rng.integers(0, 256)
        try:
            assert as_mnist(picture).max() > 100
        except ValueError as error:
            reason = str(error)
            assert reason in {BLANK, SEVERAL}


@pytest.mark.parametrize(
    "region", [np.s_[:, :20], np.s_[265:], np.s_[250:253], np.s_[:, 20:23]], ids=["table", "frame", "line", "margin"]
)
def test_ruled_lines_and_paper_edges_are_not_segmented(
    digits: Digits, region: tuple[slice, ...], finished: Path
) -> None:
    classifier = DigitClassifier.load_from_checkpoint(finished / "baseline/version_0/checkpoints/best.ckpt").eval()
    pictures = [drawn(np.pad(enlarged(digit, 200), 40)) for digit in digits[0][:40]]
    expected = classify(np.array([as_mnist(picture) for picture in pictures]), classifier)
    for picture in pictures:
        picture[region] = 60
    assert (classify(np.array([as_mnist(picture) for picture in pictures]), classifier) == expected).mean() >= 0.9


def test_dust_is_removed(digits: Digits) -> None:
    for digit in digits[0][:20]:
        picture = drawn(np.pad(enlarged(digit, 200), 40))
        expected = as_mnist(picture)
        picture[12:15, 250:253] = 40
        assert difference(as_mnist(picture), expected) < 3


def test_ink_is_segmented_by_colour_at_equal_brightness(digits: Digits) -> None:
    strength = enlarged(digits[0][0], 200)[..., None] / np.float32(255)
    paper, ink = np.array((230, 120, 120)), np.array((60, 180, 160))
    found = as_mnist(np.asarray(paper + (ink - paper) * strength, dtype=np.float32))
    assert difference(found, as_mnist(drawn(enlarged(digits[0][0], 200)))) < 6
