"""CIFAR-10 is read from the published archive, and only verified bytes are used."""

import re
import tarfile
from dataclasses import replace
from hashlib import md5
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TRAIN, Command
from numpy.typing import NDArray
from test_other_images import check_other_commands
from torch import Tensor

from mnist_lit.datasets.catalog import CIFAR10, DATASETS
from mnist_lit.datasets.cifar import CIFARDataset
from mnist_lit.runs.folders import Run

ARCHIVE = CIFAR10.files[0][0]
NOWHERE = ["file:///nowhere"]
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (6, 20, 3072), np.uint8)
LABELS = RANDOM.integers(0, 10, (6, 20), np.uint8)
BOTH = pytest.mark.parametrize("train", [True, False], ids=["train", "test"])


def packed(labels: NDArray[np.uint8] = LABELS) -> bytes:
    """Return an archive as published: its members are in no order."""
    records = np.concatenate([labels[..., None], PIXELS], axis=2)
    files = {f"{name}.bin": batch.tobytes() for name, batch in zip(NAMES, records, strict=True)}
    files |= {"readme.html": b"<html></html>", "batches.meta.txt": "\n".join(CIFAR10.classes).encode()}
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as members:
        folder = tarfile.TarInfo("cifar-10-batches-bin")
        folder.type = tarfile.DIRTYPE
        members.addfile(folder)
        for name, content in sorted(files.items(), reverse=True):
            member = tarfile.TarInfo(f"{folder.name}/{name}")
            member.size = len(content)
            members.addfile(member, BytesIO(content))
    return archive.getvalue()


def small(archive: bytes) -> CIFARDataset:
    """Return the entry of an archive with 20 images in each file."""
    published = [(ARCHIVE, md5(archive).hexdigest())]
    return replace(CIFAR10, train_size=100, test_size=20, files=published, mirrors=NOWHERE)


PUBLISHED = packed()
SMALL = small(PUBLISHED)


def expected(*, train: bool) -> tuple[Tensor, Tensor]:
    part = slice(5) if train else slice(5, 6)
    pixels, labels = torch.from_numpy(PIXELS[part]), torch.from_numpy(LABELS[part])
    return pixels.reshape(-1, 3, 32, 32), labels.flatten().long()


def assert_complete(dataset: CIFARDataset, data_dir: Path) -> None:
    for train in (True, False):
        (pixels, labels), (right_pixels, right_labels) = dataset.read(data_dir, train=train), expected(train=train)
        assert (pixels.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert torch.equal(pixels, right_pixels)
        assert torch.equal(labels, right_labels)


def write(folder: Path, *contents: bytes, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def mirror(tmp_path: Path) -> list[str]:
    return [write(tmp_path / "mirror", PUBLISHED, names=[ARCHIVE]).as_uri()]


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder for all data sets."""
    return tmp_path / "data"


def test_the_entry_is_the_published_one() -> None:
    assert DATASETS["CIFAR10"] is CIFAR10
    assert CIFAR10.files == [("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")]
    assert CIFAR10.mirrors == ("https://www.cs.toronto.edu/~kriz",)
    assert (CIFAR10.shape, CIFAR10.train_size, CIFAR10.test_size) == ((3, 32, 32), 50_000, 10_000)
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert CIFAR10.classes == classes
    assert CIFAR10.digests is None


def test_the_archive_is_verified_downloaded_once_and_read_in_order(local: Path, mirror: list[str]) -> None:
    path = write(local / "CIFAR10", PUBLISHED[:-1] + b"x", names=[ARCHIVE]) / ARCHIVE
    with pytest.raises(OSError, match=rf"{ARCHIVE} is missing or damaged"):
        SMALL.read(local, train=False)
    SMALL.fetch(local, mirror)
    SMALL.fetch(local)
    assert path.read_bytes() == PUBLISHED
    assert_complete(SMALL, local)


@BOTH
@pytest.mark.parametrize("difference", [-1, 1, -20, 20])
def test_another_number_of_images_than_the_entry_has_is_refused(
    local: Path, mirror: list[str], difference: int, *, train: bool
) -> None:
    wrong = replace(SMALL, train_size=100 + difference, test_size=20 + difference)
    wrong.fetch(local, mirror)
    found = 100 if train else 20
    size, shape = found + difference, "3, 32, 32"
    message = f"CIFAR10: {found} labels and pixels ({found}, {shape}), expected {size} and ({size}, {shape})"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        wrong.read(local, train=train)


@pytest.mark.parametrize("label", [10, 255])
def test_a_label_beyond_the_classes_is_refused(local: Path, label: int) -> None:
    labels = LABELS.copy()
    labels[4, 19] = label
    archive = packed(labels)
    write(local / "CIFAR10", archive, names=[ARCHIVE])
    dataset = small(archive)
    with pytest.raises(ValueError, match=rf"^CIFAR10: labels 0 to {label}, expected 0 to 9$"):
        dataset.read(local, train=True)
    assert torch.equal(dataset.read(local, train=False)[1], expected(train=False)[1])


def test_every_command_works_with_cifar_10(
    command: Command, mirror: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "CIFAR10", replace(SMALL, mirrors=mirror))
    config = str(TRAIN.parent / "configs" / "cifar10.yaml")
    flags = ["--config", config, "--data.batch_size=10", "--model.channels=[4,4,4,4,4,4,4]", "--trainer.max_epochs=2"]
    out = command.succeed("fit", *flags, "--data.val_size=20", "--trainer.max_steps=12", "--trainer.accelerator=cpu")
    assert "data     CIFAR10: 80 images to train on, 20 to validate, 20 to test\n" in out
    assert command("fit", "--ckpt_path=last", "--trainer.max_steps=16")[0] == 2, "its schedule has 12 steps"
    columns = ["class", *(f"p_{name}" for name in CIFAR10.classes)]
    check_other_commands(command, 20, CIFAR10.shape, *columns, run=Run(Path("runs/cifar10/version_0")))
