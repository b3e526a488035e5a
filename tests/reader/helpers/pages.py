"""Pages of networks, as `export` makes them."""

from collections.abc import Sequence
from typing import Any

import torch

from mnist_lit import DigitClassifier
from mnist_lit.calibration import CalibratedNetwork
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.reader.page.html import describe_page, write_page

__all__ = ["describe", "page_of"]


def describe(
    classifier: DigitClassifier, shape: Sequence[int] = MNIST.shape, classes: Sequence[str] = MNIST.classes
) -> dict[str, Any]:
    """Return what a page needs of a classifier: of digits or, with the names of other classes, of photographs."""
    example = torch.zeros(2, *shape, dtype=torch.uint8)
    return describe_page(
        CalibratedNetwork(classifier.network, classifier.temperature),
        example,
        classes,
        "test",
        "digits" if (shape, classes) == (MNIST.shape, MNIST.classes) else "photographs",
    )


def page_of(
    classifier: DigitClassifier, shape: Sequence[int] = MNIST.shape, classes: Sequence[str] = MNIST.classes
) -> str:
    """Return the page of a classifier."""
    return write_page(describe(classifier, shape, classes))
