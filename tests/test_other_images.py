"""A data set of another shape and number of classes is one entry of the catalog; the network follows it."""

import gzip
from collections.abc import Sequence
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RUN, SHORT, Command, read_rows

from mnist_lit.datasets.catalog import DATASETS
from mnist_lit.datasets.idx import IDXDataset
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run

BARS = ["--data.dataset=Bars", "--data.val_size=50", "--data.batch_size=20"]
FLAGS = [*SHORT, *BARS, "--trainer.limit_test_batches=1.0"]


def check_other_commands(
    command: Command, images: int, shape: Sequence[int], *columns: str, run: Run = RUN
) -> list[dict[str, str]]:
    """Validate, test, predict and export the network of a finished run; return the rows of the predictions.

    `columns` are those of the class and of the probabilities.
    """
    for name in ("validate", "test", "predict"):
        assert command(name)[::2] == (0, "")
    table = read_rows(run.folder / "predictions.csv")
    assert list(table[0]) == ["image", columns[0], "probability", *columns[1:]]
    assert len(table) == run.results()["test"]["total"] == images
    assert command("export", "--output=model.pt2")[::2] == (0, "")
    program = torch.export.load("model.pt2").module()
    assert program(torch.zeros(5, *shape, dtype=torch.uint8)).shape == (5, len(columns) - 1)
    return table


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
    assert RUN.results()["test"]["accuracy"] > 0.8
    assert bars("fit", "--ckpt_path=last", "--trainer.max_epochs=3")[::2] == (0, "")
    check_other_commands(bars, 60, (1, 20, 12), "class", "p_top", "p_middle", "p_bottom")


def test_weights_of_one_data_set_start_a_training_on_another(bars: Command) -> None:
    assert bars("fit", *SHORT, "--trainer.max_epochs=1")[0] == 0
    code, out, err = bars("fit", *FLAGS, "--init_from", RUN.checkpoints / "best.ckpt", "--trainer.max_epochs=1")
    assert (code, err) == (0, "")
    assert "reinitialised, since their shapes or classes differ: fc.weight, fc.bias\n" in out
    code, _, err = bars("test", *BARS, "--ckpt_path", RUN.checkpoints / "best.ckpt")
    trained = f"{RUN.checkpoints / 'best.ckpt'} was trained on 10 classes of images (1, 28, 28)"
    assert (code, err) == (2, f"error: Bars has 3 classes of images (1, 20, 12), {trained}\n")
