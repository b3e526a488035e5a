"""Pages of networks, as `export` makes them.

In the folder `tests`, `python -m reader.helpers.pages` writes `docs/digits.html` again, with the present scripts.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import torch
from conftest import TRAIN

from mnist_lit import DigitClassifier
from mnist_lit.calibration import CalibratedNetwork
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.dataset import Fit
from mnist_lit.reader.page.html import describe_page, write_page

__all__ = ["PAGE", "describe", "described_in", "page_of"]

PAGE = TRAIN.parent / "docs" / "digits.html"


def describe(
    classifier: DigitClassifier,
    shape: Sequence[int] = MNIST.shape,
    classes: Sequence[str] = MNIST.classes,
    fit: Fit = "crop",
) -> dict[str, Any]:
    """Return what a page needs of a classifier: of digits or, with the names of other classes, of photographs."""
    return describe_page(
        CalibratedNetwork(classifier.network, classifier.temperature),
        torch.zeros(2, *shape, dtype=torch.uint8),
        classes,
        "test",
        "digits" if (shape, classes) == (MNIST.shape, MNIST.classes) else "photographs",
        fit,
    )


def page_of(
    classifier: DigitClassifier,
    shape: Sequence[int] = MNIST.shape,
    classes: Sequence[str] = MNIST.classes,
    fit: Fit = "crop",
) -> str:
    """Return the page of a classifier."""
    return write_page(describe(classifier, shape, classes, fit))


def described_in(page: str) -> dict[str, Any]:
    """Return what a page was written of."""
    found = re.search(r'<script id="model" type="application/json">(.*?)</script>', page)
    assert found
    described: dict[str, Any] = json.loads(found[1])
    return described


if __name__ == "__main__":
    PAGE.write_text(write_page(described_in(PAGE.read_text(encoding="utf-8"))), encoding="utf-8")
