"""The catalog has the published files, and only these are accepted, compressed or not."""

import gzip
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from torchvision import datasets as listed

from mnist_lit.datasets.catalog import DATASETS, FASHION_MNIST, KMNIST, MNIST
from mnist_lit.datasets.idx import IDXDataset, IDXFile

SHIPPED = Path(__file__).parent.parent.parent / "mnist_lit" / "datasets" / "mnist"
IMAGES, LABELS = MNIST.idx_files[2:]


@pytest.fixture(scope="module")
def images() -> bytes:
    return (SHIPPED / f"{IMAGES.name}.gz").read_bytes()


@pytest.mark.parametrize("dataset", [MNIST, FASHION_MNIST, KMNIST], ids=lambda dataset: dataset.name)
def test_files_checksums_and_mirrors_match_torchvision(dataset: IDXDataset) -> None:
    reference = getattr(listed, dataset.name)
    assert [(f"{file.name}.gz", file.md5) for file in dataset.idx_files] == reference.resources
    assert list(dataset.mirrors[-len(reference.mirrors) :]) == reference.mirrors
    assert len(dataset.classes) == 10


def test_class_names() -> None:
    assert MNIST.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert DATASETS["FashionMNIST"].classes[9] == "Ankle boot"
    assert DATASETS["KMNIST"].classes[3] == "tsu"


@pytest.mark.parametrize("file", MNIST.idx_files, ids=lambda file: file.name)
def test_package_includes_the_published_files(file: IDXFile) -> None:
    with (SHIPPED / f"{file.name}.gz").open("rb") as stream:
        assert file.content(stream)


def test_recompressed_or_extracted_file_is_accepted(images: bytes) -> None:
    content = gzip.decompress(images)
    for file in (images, gzip.compress(content, compresslevel=1), content):
        assert bytes(IMAGES.content(BytesIO(file)) or b"") == content


def test_without_content_md5_only_the_published_file_is_accepted(images: bytes) -> None:
    file = IDXFile(IMAGES.name, IMAGES.shape, IMAGES.md5)
    assert file.content(BytesIO(images))
    assert file.content(BytesIO(gzip.decompress(images))) is None


def test_any_other_content_is_rejected(images: bytes) -> None:
    corrupt = bytearray(images)
    corrupt[len(images) // 2] ^= 1
    for content in (
        b"",
        b"x",
        b"<html></html>",
        images[:-1],
        images[:1000],
        images + b"x",
        bytes(corrupt),
        bytes(10_000),
    ):
        assert IMAGES.content(BytesIO(content)) is None
    assert LABELS.content(BytesIO(images)) is None


def test_decompression_bomb_is_rejected() -> None:
    bomb = gzip.compress(bytes(2 * IMAGES.max_bytes))
    assert len(bomb) < 200_000
    assert IMAGES.content(BytesIO(bomb)) is None


def test_huge_file_is_rejected_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / IMAGES.name).open("w+b") as file:
        file.truncate(1 << 40)  # sparse: takes no space on the disk
        assert IMAGES.content(file) is None


@pytest.mark.parametrize("train_size", [500, 70_000])
def test_a_wrong_size_in_an_entry_is_named_and_does_not_make_a_file_damaged(
    data_dir: Path, tmp_path: Path, train_size: int
) -> None:
    wrong = replace(MNIST, train_size=train_size)
    for folder, mirror in (
        (shutil.copytree(data_dir, tmp_path / "copy"), "file:///nowhere"),
        (tmp_path, SHIPPED.as_uri()),
    ):
        wrong.fetch(folder, [mirror])
        with pytest.raises(ValueError, match=rf"shape \(60000, 28, 28\), expected \({train_size}, 28, 28\)"):
            wrong.read(folder, train=True)


def test_labels_beyond_the_classes_of_an_entry_are_refused(data_dir: Path) -> None:
    with pytest.raises(ValueError, match="labels up to 9, expected 8 classes"):
        replace(MNIST, classes="01234567").read(data_dir, train=False)
