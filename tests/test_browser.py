"""What a person sees when they open TensorBoard on a finished run."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from browser import BROWSER, chart, open_tensorboard, picture
from PIL import Image

pytestmark = [
    pytest.mark.skipif(not BROWSER, reason="no Chromium: Debian's package chromium is one"),
    pytest.mark.skipif(not find_spec("playwright"), reason="no playwright: pip install -e '.[dev]'"),
]


@pytest.mark.usefixtures("trained")
def test_curves_confusion_and_mistakes_are_rendered(tmp_path: Path) -> None:
    with open_tensorboard(Path("runs")) as page:
        accuracy = chart(page, "accuracy")
        for tag in ("train/accuracy", "val/accuracy"):
            accuracy.get_by_text(tag).wait_for(state="attached")
        lines = {line.get_attribute("d") for line in accuracy.locator("path.line[d^=M]").all()}
        assert len(lines) >= 2, "two curves that differ"

        for tag in ("test/confusion", "test/mistakes", "val/mistakes"):
            picture(page, tag).screenshot(path=tmp_path / "seen.png")
            seen = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB")).astype(int)
            assert min(seen.shape[:2]) > 200
            assert 0.2 < (seen.min(axis=2) > 230).mean() < 0.98, f"{tag}: drawn on white"
            blue = ((seen[..., 2] - seen[..., 0]) > 100).mean()
            assert (blue > 0.02) == (tag == "test/confusion"), "the diagonal"


@pytest.mark.usefixtures("trained")
def test_settings_stand_in_a_table_with_both_accuracies() -> None:
    with open_tensorboard(Path("runs")) as page:
        page.goto(f"{page.url.partition('#')[0]}#hparams")
        for text in ("learning_rate", "val/accuracy", "test/accuracy"):
            page.get_by_text(text).first.wait_for()
