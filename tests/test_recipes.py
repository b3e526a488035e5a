"""The recipes in configs/ reach the accuracies that the README reports."""

from dataclasses import replace
from hashlib import md5
from pathlib import Path

import pytest
from conftest import Command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lit.datasets.catalog import DATASETS, FASHION_MNIST
from mnist_lit.runs.folders import Run

CONFIGS = Path(__file__).parent.parent / "configs"
FASHION = Path("/usr/share/datasets/fashion-mnist")
no_fashion = pytest.mark.skipif(not FASHION.is_dir(), reason="install Debian's package dataset-fashion-mnist")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("recipe", "flags", "accuracy"),
    [
        ("baseline", [], 0.987),
        ("fast", [], 0.987),  # the mean over ten seeds is 99.0 %, the standard deviation 0.1 points
        ("best", ["--trainer.max_epochs=2"], 0.992),  # all epochs take too long for a test
    ],
)
def test_recipe_reaches_its_accuracy(command: Command, recipe: str, flags: list[str], accuracy: float) -> None:
    assert command("fit", "--config", CONFIGS / f"{recipe}.yaml", *flags)[0] == 0
    assert Run(Path(f"runs/{recipe}/version_0")).results()["test"]["accuracy"] >= accuracy


@no_fashion
def test_fashion_reaches_its_accuracy(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Debian's copy, which is compressed in another way."""
    names = (f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
    files = [(name, md5((FASHION / name).read_bytes()).hexdigest()) for name in names]
    monkeypatch.setitem(DATASETS, "FashionMNIST", replace(FASHION_MNIST, files=files))
    mirror = f"--data.mirrors=[{FASHION.as_uri()}]"
    assert command("fit", "--config", CONFIGS / "fashion.yaml", mirror)[0] == 0
    assert Run(Path("runs/fashion/version_0")).results()["test"]["accuracy"] >= 0.905


def test_blog_recipe_reaches_the_accuracy_and_loss_of_the_blog(command: Command) -> None:
    assert command("fit", "--config", CONFIGS / "blog.yaml")[0] == 0
    run = Run(Path("runs/blog/version_0"))
    assert run.results()["test"]["accuracy"] >= 0.988
    losses = EventAccumulator(str(run.folder)).Reload().Scalars("train/loss")
    assert [loss.step for loss in losses] == [600 * epoch - 1 for epoch in range(1, 16)]
    assert 0.003 <= losses[-1].value <= 0.009
