"""TensorBoard shows a finished run in a browser."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers.browser import BROWSER, find_chart, find_image, open_tensorboard
from PIL import Image

pytestmark = [
    pytest.mark.slow,  # with a browser
    pytest.mark.skipif(not BROWSER, reason="no Chromium: install Debian's package chromium"),
    pytest.mark.skipif(not find_spec("playwright"), reason="no playwright: pip install -e '.[dev]'"),
]


@pytest.mark.usefixtures("trained")
def test_curves_confusion_matrix_and_mistakes_are_rendered(tmp_path: Path) -> None:
    with open_tensorboard(Path("runs")) as page:
        accuracy = find_chart(page, "accuracy")
        for tag in ("train/accuracy", "val/accuracy"):
            accuracy.get_by_text(tag).wait_for(state="attached")
        lines = {line.get_attribute("d") for line in accuracy.locator("path.line[d^=M]").all()}
        assert len(lines) >= 2, "two different curves"

        for tag in ("test/confusion", "test/mistakes", "val/mistakes"):
            find_image(page, tag).screenshot(path=tmp_path / "image.png")
            pixels = np.asarray(Image.open(tmp_path / "image.png").convert("RGB")).astype(int)
            assert min(pixels.shape[:2]) > 200
            assert 0.2 < (pixels.min(axis=2) > 230).mean() < 0.98, f"{tag}: the background is white"
            blue = ((pixels[..., 2] - pixels[..., 0]) > 100).mean()
            assert (blue > 0.02) == (tag == "test/confusion"), "the diagonal is blue"


@pytest.mark.usefixtures("trained")
def test_hyperparameters_are_shown_with_both_accuracies() -> None:
    with open_tensorboard(Path("runs")) as page:
        page.goto(f"{page.url.partition('#')[0]}#hparams")
        for text in ("learning_rate", "val/accuracy", "test/accuracy"):
            page.get_by_text(text).first.wait_for()
