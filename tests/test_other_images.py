"""A data set of another shape and number of classes is one entry of the catalog; the network follows it."""

import gzip
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RUN, SHORT, Command

from mnist_lit.datasets.catalog import DATASETS
from mnist_lit.datasets.idx import IDXDataset
from mnist_lit.runs.checkpoints import Checkpoint

BARS = ["--data.dataset=Bars", "--data.val_size=50", "--data.batch_size=20"]
FLAGS = [*SHORT, *BARS, "--trainer.limit_test_batches=1.0"]


def write_idx(path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> tuple[str, str]:
    """Write an IDX file, and return its name and checksum."""
    content = gzip.compress(
        bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()
    )
    path.write_bytes(content)
    return path.name, md5(content).hexdigest()


@pytest.fixture
def bars(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`command` with a data set of 20×12 pixels and three classes: a bar at the top, in the middle or at the bottom."""
    rng, files = np.random.default_rng(0), []
    (tmp_path / "mirror").mkdir()
    for part, size in (("train", 450), ("test", 60)):
        labels = rng.integers(0, 3, size, dtype=np.uint8)
        images = rng.integers(0, 60, (size, 20, 12), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 + 6 * label : 6 + 6 * label] += 150
        files += [write_idx(tmp_path / f"mirror/{part}-images.gz", images)]
        files += [write_idx(tmp_path / f"mirror/{part}-labels.gz", labels)]
    entry = IDXDataset(
        name="Bars",
        classes=("top", "middle", "bottom"),
        shape=(1, 20, 12),
        train_size=450,
        test_size=60,
        files=files,
        mirrors=[(tmp_path / "mirror").as_uri()],
    )
    monkeypatch.setitem(DATASETS, "Bars", entry)
    return command


def test_every_command_works_with_images_of_another_shape(bars: Command) -> None:
    code, out, err = bars("fit", *FLAGS, "--data.rotation=10", "--data.elastic=1", "--model.learning_rate=0.01")
    assert (code, err) == (0, "")
    assert "data     Bars: 400 images to train on, 50 to validate, 60 to test\n" in out
    assert "(1, 20, 12) → (4, 20, 12) → (4, 10, 6) → (8, 10, 6) → (8, 5, 3) → 120 → 3\n" in out
    settings = Checkpoint.read(RUN.checkpoints / "best.ckpt").settings["model"]
    assert (settings["shape"], settings["classes"]) == ([1, 20, 12], 3)
    assert RUN.results()["test"]["total"] == 60
    assert RUN.results()["test"]["accuracy"] > 0.8
    assert bars("fit", "--ckpt_path=last", "--trainer.max_epochs=3")[::2] == (0, "")
    for name in ("validate", "test", "predict"):
        assert bars(name)[::2] == (0, "")
    table = (RUN.folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert (table[0], len(table)) == ("image,class,probability,p_top,p_middle,p_bottom", 61)
    assert bars("export", "--output=bars.pt2")[::2] == (0, "")
    program = torch.export.load("bars.pt2").module()
    assert program(torch.zeros(5, 1, 20, 12, dtype=torch.uint8)).shape == (5, 3)


def test_weights_of_one_data_set_start_a_training_on_another(bars: Command) -> None:
    assert bars("fit", *SHORT, "--trainer.max_epochs=1")[0] == 0
    code, out, err = bars("fit", *FLAGS, "--init_from", RUN.checkpoints / "best.ckpt", "--trainer.max_epochs=1")
    assert (code, err) == (0, "")
    assert "reinitialised, since it has none of this shape: fc.weight, fc.bias\n" in out
    code, _, err = bars("test", *BARS, "--ckpt_path", RUN.checkpoints / "best.ckpt")
    trained = f"{RUN.checkpoints / 'best.ckpt'} was trained on 10 classes of images (1, 28, 28)"
    assert (code, err) == (2, f"error: Bars has 3 classes of images (1, 20, 12), {trained}\n")


def test_a_format_of_one_channel_refuses_colours() -> None:
    with pytest.raises(ValueError, match="Colours: an image in this format has one channel, not 3"):
        IDXDataset(name="Colours", classes=("a",), shape=(3, 8, 8), train_size=1, test_size=1, files=[])
