"""Digits are segmented and normalised as MNIST's are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reader.helpers.digits import Digits, difference, drawn, enlarged
from reader.helpers.photographs import photograph

from mnist_lit import DigitClassifier
from mnist_lit.datasets.images import open_image
from mnist_lit.reader.preprocess import as_mnist

BLANK = "no digit in it: it looks blank"
SEVERAL = "more than one digit in it: crop it to one, or give --several"


def classify(pictures: NDArray[np.uint8], classifier: DigitClassifier) -> NDArray[np.int64]:
    with torch.inference_mode():
        classes: NDArray[np.int64] = classifier(torch.from_numpy(pictures)[:, None]).argmax(dim=1).numpy()
    return classes


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


@pytest.mark.parametrize("margin", [0, 2])
def test_a_digit_that_fills_a_small_picture_is_read(digits: Digits, margin: int, fast: DigitClassifier) -> None:
    """Digits that were cropped to their edges, of 20 pixels."""
    found = []
    for digit in digits[0][:1_000]:
        rows, columns = (np.flatnonzero(digit.any(axis)) for axis in (1, 0))
        tight = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        try:
            found.append(as_mnist(drawn(np.pad(tight, margin), ink=0, paper=255)))
        except ValueError:
            found.append(np.zeros((28, 28), dtype=np.uint8))
    expected = (classify(digits[0][:1_000], fast) == digits[1][:1_000]).mean()
    assert (classify(np.array(found), fast) == digits[1][:1_000]).mean() >= expected - 0.02


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


def test_ink_is_segmented_by_colour_at_equal_brightness(digits: Digits) -> None:
    strength = enlarged(digits[0][0], 200)[..., None] / np.float32(255)
    paper, ink = np.array((230, 120, 120)), np.array((60, 180, 160))
    found = as_mnist(np.asarray(paper + (ink - paper) * strength, dtype=np.float32))
    assert difference(found, as_mnist(drawn(enlarged(digits[0][0], 200)))) < 6
