"""CIFAR-10 is read from the published archive or from torchvision's batches, and only verified bytes are used."""

import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import md5
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TRAIN, Command
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_other_images import check_other_commands
from torch import Tensor
from torchvision import datasets as listed

from mnist_lit.datasets.catalog import CIFAR10, DATASETS
from mnist_lit.datasets.cifar import CIFARDataset
from mnist_lit.runs.folders import Run

ARCHIVE = CIFAR10.archive[0]
TRAINING_IMAGES = ("train/batch", "train/filters")
NOWHERE = ["file:///nowhere"]
NAMES = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
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


def pickled(value: Any) -> bytes:
    """Return a pickle as Python 2 and its NumPy wrote it: Python 3 writes other opcodes and globals."""
    return b"\x80\x02" + opcodes(value) + b"."


def opcodes(value: Any) -> bytes:
    if isinstance(value, int):
        return struct.pack("<ci", b"J", value)
    if isinstance(value, str | bytes):
        return struct.pack("<ci", b"T", len(value)) + (value.encode() if isinstance(value, str) else value)
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(opcodes(key) + opcodes(item) for key, item in value.items()) + b"u"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
    shape = opcodes(value.shape[0]) + opcodes(value.shape[1]) + b"\x86"
    dtype = b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + opcodes(value.tobytes()) + b"tb"


def small(archive: bytes, batches: list[bytes]) -> CIFARDataset:
    """Return the entry of an archive, and of torchvision's batches, with 20 images in each batch."""
    sums = [[name, md5(batch).hexdigest()] for name, batch in zip(NAMES, batches, strict=True)]
    return replace(
        CIFAR10,
        train_size=100,
        test_size=20,
        archive=(ARCHIVE, md5(archive).hexdigest()),
        train_batches=sums[:5],
        test_batches=sums[5:],
        mirrors=NOWHERE,
    )


PUBLISHED = packed()
BATCHES = [
    pickled({"batch_label": name, "labels": labels.tolist(), "data": pixels, "filenames": [f"{i}.png" for i in labels]})
    for name, pixels, labels in zip(NAMES, PIXELS, LABELS, strict=True)
]
SMALL = small(PUBLISHED, BATCHES)


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
    assert CIFAR10.archive == ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")
    assert CIFAR10.mirrors == ("https://www.cs.toronto.edu/~kriz",)
    batches = [list(batch) for batch in (*CIFAR10.train_batches, *CIFAR10.test_batches)]
    assert batches == listed.CIFAR10.train_list + listed.CIFAR10.test_list
    assert [name for name, _ in [*CIFAR10.train_batches, *CIFAR10.test_batches]] == NAMES
    assert (CIFAR10.shape, CIFAR10.train_size, CIFAR10.test_size) == ((3, 32, 32), 50_000, 10_000)
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert CIFAR10.classes == classes
    assert CIFAR10.digests is None


def test_the_archive_is_downloaded_once_and_read_in_order(local: Path, mirror: list[str]) -> None:
    SMALL.fetch(local, mirror)
    SMALL.fetch(local)
    assert (local / "CIFAR10" / ARCHIVE).read_bytes() == PUBLISHED
    assert_complete(SMALL, local)


@pytest.mark.filterwarnings("ignore:dtype.* align:Warning")  # of torchvision with NumPy 2.4.0 to 2.4.4
def test_batches_extracted_by_torchvision_are_used_without_a_mirror_and_equal_what_it_reads(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = pickled({"label_names": list(CIFAR10.classes)})
    folder = write(local / listed.CIFAR10.base_folder, *BATCHES, meta, names=[*NAMES, "batches.meta"])
    SMALL.fetch(local)
    assert_complete(SMALL, local)
    assert list(local.iterdir()) == [folder]
    write(local / "CIFAR10", b"damaged", names=[ARCHIVE])
    SMALL.fetch(local)
    assert_complete(SMALL, local)
    monkeypatch.setattr(listed.CIFAR10, "train_list", SMALL.train_batches)
    monkeypatch.setattr(listed.CIFAR10, "test_list", SMALL.test_batches)
    monkeypatch.setitem(listed.CIFAR10.meta, "md5", md5(meta).hexdigest())
    for train in (True, False):
        theirs, (pixels, labels) = listed.CIFAR10(str(local), train=train), expected(train=train)
        assert np.array_equal(theirs.data, pixels.permute(0, 2, 3, 1).numpy())
        assert theirs.targets == labels.tolist()


@pytest.mark.parametrize("damaged", [0, 5])
def test_the_archive_replaces_extracted_batches_of_which_one_is_damaged(
    local: Path, mirror: list[str], damaged: int
) -> None:
    path = write(local / "cifar-10-batches-py", *BATCHES, names=NAMES) / NAMES[damaged]
    path.write_bytes(BATCHES[damaged][:-4] + b"\0tb.")  # still a pickle, with another pixel
    with pytest.raises(OSError, match=rf"{ARCHIVE} is missing or damaged"):
        SMALL.read(local, train=damaged < 5)
    SMALL.fetch(local, mirror)
    assert_complete(SMALL, local)


class Attack:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: str) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("key", ["data", "labels", "filenames"])
def test_code_in_a_batch_is_not_run_even_if_its_checksum_is_right(local: Path, key: str, protocol: int) -> None:
    batch = {"labels": [0], "data": [0], key: Attack(os.mkdir, str(local / "made"))}
    attack = pickle.dumps(batch, protocol)
    dataset = small(PUBLISHED, [attack, *BATCHES[1:]])
    write(local / "cifar-10-batches-py", attack, *BATCHES[1:], names=NAMES)
    dataset.fetch(local)
    with pytest.raises(pickle.UnpicklingError, match=r"mkdir is not part of an array"):
        dataset.read(local, train=True)
    assert not (local / "made").exists()
    pickle.loads(attack)
    assert (local / "made").exists()


@pytest.mark.parametrize("damaged", [b"", PUBLISHED[:-100], PUBLISHED[:-1] + b"x"], ids=["empty", "truncated", "other"])
def test_a_damaged_archive_is_reported_kept_and_downloaded_again(
    local: Path, mirror: list[str], damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(local / "CIFAR10", damaged, names=[ARCHIVE]) / ARCHIVE
    with pytest.raises(OSError, match=rf"{ARCHIVE} is missing or damaged"):
        SMALL.read(local, train=False)
    SMALL.fetch(local, mirror)
    assert path.read_bytes() == PUBLISHED
    assert path.with_name(f"{ARCHIVE}.damaged").read_bytes() == damaged
    assert caplog.messages == [f"{path} is damaged: kept as {ARCHIVE}.damaged, fetching it again"]
    assert_complete(SMALL, local)


@BOTH
@pytest.mark.parametrize("difference", [-1, 1, -20, 20])
def test_another_number_of_images_than_the_entry_has_is_refused(
    local: Path, mirror: list[str], difference: int, *, train: bool
) -> None:
    wrong = replace(SMALL, train_size=100 + difference, test_size=20 + difference)
    wrong.fetch(local, mirror)
    size = 100 if train else 20
    with pytest.raises(ValueError, match=rf"^CIFAR10: {size} images, expected {size + difference}$"):
        wrong.read(local, train=train)


@pytest.mark.parametrize("label", [10, 255])
def test_a_label_beyond_the_classes_is_refused(local: Path, label: int) -> None:
    labels = LABELS.copy()
    labels[4, 19] = label
    archive = packed(labels)
    write(local / "CIFAR10", archive, names=[ARCHIVE])
    dataset = small(archive, BATCHES)
    with pytest.raises(ValueError, match=rf"^CIFAR10: labels up to {label}, expected 10 classes$"):
        dataset.read(local, train=True)
    assert torch.equal(dataset.read(local, train=False)[1], expected(train=False)[1])


def test_every_command_works_with_cifar_10(
    command: Command, mirror: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "CIFAR10", replace(SMALL, mirrors=mirror))
    config = TRAIN.parent / "configs" / "cifar10.yaml"
    flags = ["--config", config, "--data.batch_size=10", "--model.channels=[4,4,4,4,4,4,4]", "--trainer.max_epochs=2"]
    code, out, err = command("fit", *flags, "--data.val_size=20", "--trainer.max_steps=12", "--trainer.accelerator=cpu")
    assert (code, err) == (0, "")
    assert "data     CIFAR10: 80 images to train on, 20 to validate, 20 to test\n" in out
    assert command("fit", "--ckpt_path=last", "--trainer.max_steps=16")[0] == 2, "its schedule has 12 steps"
    run = Run(Path("runs/cifar10/version_0"))
    images = EventAccumulator(str(run.folder), {"images": 0}).Reload().Tags()["images"]
    assert set(images) == {*(f"{s}/{n}" for s in ("val", "test") for n in ("confusion", "mistakes")), *TRAINING_IMAGES}
    columns = ["class", *(f"p_{name}" for name in CIFAR10.classes)]
    rows = check_other_commands(command, 20, CIFAR10.shape, *columns, run=run)
    assert {row["class"] for row in rows} <= {*CIFAR10.classes}
    Image.new("RGB", (300, 200), "green").save("photo.jpg")
    code, out, err = command("predict", "--images", "photo.jpg")
    assert (code, err) == (0, "")
    (line,) = (line for line in out.splitlines() if line.startswith("photo.jpg: "))
    assert line.split(": ")[1].split(",")[0] in CIFAR10.classes
