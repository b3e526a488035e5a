"""A digit is normalised as MNIST's are: its size, position and stroke width."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from reader.helpers.digits import Digits, difference, drawn, enlarged

from mnist_lit.reader.preprocess import as_mnist


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
