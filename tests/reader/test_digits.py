"""The only digit of a picture is found: dust is not part of it, and a second digit is refused."""

import numpy as np
import pytest
from reader.helpers.digits import Digits, difference, drawn, enlarged

from mnist_lit.reader.preprocess import as_mnist

SEVERAL = "more than one digit in it: crop it to one, or give --several"


@pytest.mark.parametrize("axis", [0, 1])
def test_several_digits_are_rejected(digits: Digits, axis: int) -> None:
    for first, second in zip(digits[0][:100:2], digits[0][1:100:2], strict=True):
        with pytest.raises(ValueError, match=SEVERAL):
            as_mnist(drawn(enlarged(np.concatenate((first, second), axis), 400)))


def test_single_digits_are_not_rejected(digits: Digits) -> None:
    for digit in digits[0][:200]:
        as_mnist(drawn(enlarged(digit, 200)))


def test_dust_is_removed(digits: Digits) -> None:
    for digit in digits[0][:20]:
        picture = drawn(np.pad(enlarged(digit, 200), 40))
        expected = as_mnist(picture)
        picture[12:15, 250:253] = 40
        assert difference(as_mnist(picture), expected) < 3
