"""A data set of torchvision as an entry of the catalog."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import RUN, Command
from PIL import Image
from torchvision.datasets import FakeData

from mnist_lit.datasets.catalog import DATASETS
from mnist_lit.datasets.torchvision_dataset import TorchvisionDataset

SIZES = {True: 60, False: 20}


def fake(_folder: str, train: bool, _download: bool) -> Any:  # noqa: FBT001
    return FakeData(SIZES[train], (3, 16, 12), 3, random_offset=0 if train else 1_000)


FAKE = TorchvisionDataset(
    name="Fake",
    kind="photographs",
    classes=("ant", "bee", "cow"),
    shape=(3, 16, 12),
    train_size=60,
    test_size=20,
    load=fake,
)


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_images_are_read_as_torchvision_has_them(channels: int, mode: str, tmp_path: Path) -> None:
    pixels, labels = replace(FAKE, shape=(channels, 16, 12)).read(tmp_path, train=False)
    assert (pixels.shape, pixels.dtype, labels.dtype) == ((20, channels, 16, 12), torch.uint8, torch.int64)
    for image, label, (expected, number) in zip(pixels, labels, fake("", False, False), strict=True):
        array = np.asarray(expected.convert(mode)).reshape(16, 12, channels)
        assert torch.equal(image, torch.tensor(array).permute(2, 0, 1))
        assert label == number


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_size": 30}, r"Fake: 20 labels and pixels \(20, 3, 16, 12\), expected 30 and \(30, 3, 16, 12\)"),
        ({"classes": ("ant", "bee")}, "Fake: labels 0 to 2, expected 0 to 1"),
        ({"shape": (3, 12, 16)}, r"pixels \(20, 3, 16, 12\), expected 20 and \(20, 3, 12, 16\)"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FAKE, **changes).read(tmp_path, train=False)


def test_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    images = [(Image.new("RGB", (12, height)), 0) for height in (16, 15)]
    with pytest.raises(ValueError, match="Fake: its images have several sizes, and a data set has one"):
        replace(FAKE, load=lambda *_: images).read(tmp_path, train=True)


def test_both_sets_are_downloaded_and_a_failure_names_the_data_set(tmp_path: Path) -> None:
    calls: list[tuple[str, bool, bool]] = []

    def load(*given: Any) -> Any:
        calls.append(given)
        if not given[2]:
            raise RuntimeError("Dataset not found")

    dataset = replace(FAKE, load=load)
    dataset.fetch(tmp_path)
    assert calls == [(str(tmp_path), True, True), (str(tmp_path), False, True)]
    with pytest.raises(OSError, match="Fake: torchvision cannot read or download its files: Dataset not found"):
        dataset.read(tmp_path, train=True)


def test_mirrors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mirrors: torchvision has its own for Fake"):
        FAKE.fetch(tmp_path, ["https://example.org"])


def test_it_is_trained_on_by_its_name(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "Fake", FAKE)
    flags = ["--data.batch_size=10", "--trainer.max_epochs=1", "--model.channels=[4]", "--data.flip=true"]
    out = command.succeed("fit", "--data.dataset=Fake", *flags)
    assert "Fake: 54 images to train on, 6 to validate, 20 to test" in out
    assert RUN.results()["test"]["total"] == 20
    assert command("test")[0] == 0
