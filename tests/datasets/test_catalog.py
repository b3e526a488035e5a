"""A file is right if it is the published one, byte for byte or by its content; anything else is not."""

import gzip
from io import BytesIO
from pathlib import Path

import pytest
from torchvision import datasets as listed

from mnist_lit.datasets.catalog import DATASETS, MNIST
from mnist_lit.datasets.idx import IDXFile

SHIPPED = Path(__file__).parent.parent.parent / "mnist_lit" / "datasets" / "mnist"
IMAGES, LABELS = MNIST.idx_files[2:]


@pytest.fixture(scope="module")
def images() -> bytes:
    return (SHIPPED / f"{IMAGES.name}.gz").read_bytes()


@pytest.mark.parametrize("name", DATASETS)
def test_files_sums_and_mirrors_are_torchvisions(name: str) -> None:
    dataset, theirs = DATASETS[name], getattr(listed, name)
    assert [(f"{file.name}.gz", file.md5) for file in dataset.idx_files] == theirs.resources
    assert list(dataset.mirrors[-len(theirs.mirrors) :]) == theirs.mirrors
    assert len(dataset.classes) == 10


def test_classes_have_short_names() -> None:
    assert MNIST.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert DATASETS["FashionMNIST"].classes[9] == "Ankle boot"
    assert DATASETS["KMNIST"].classes[3] == "tsu"


@pytest.mark.parametrize("file", MNIST.idx_files, ids=lambda file: file.name)
def test_the_package_ships_the_published_files(file: IDXFile) -> None:
    with (SHIPPED / f"{file.name}.gz").open("rb") as stream:
        assert file.content(stream)


def test_a_file_compressed_anew_or_extracted_is_right_by_its_content(images: bytes) -> None:
    content = gzip.decompress(images)
    for file in (images, gzip.compress(content, compresslevel=1), content):
        assert bytes(IMAGES.content(BytesIO(file)) or b"") == content


def test_without_a_known_content_only_the_published_file_is_right(images: bytes) -> None:
    file = IDXFile(IMAGES.name, IMAGES.shape, IMAGES.md5)
    assert file.content(BytesIO(images))
    assert file.content(BytesIO(gzip.decompress(images))) is None


def test_anything_else_is_wrong(images: bytes) -> None:
    flipped = bytearray(images)
    flipped[len(images) // 2] ^= 1
    for wrong in (
        b"",
        b"x",
        b"<html></html>",
        images[:-1],
        images[:1000],
        images + b"x",
        bytes(flipped),
        bytes(10_000),
    ):
        assert IMAGES.content(BytesIO(wrong)) is None
    assert LABELS.content(BytesIO(images)) is None


def test_a_small_file_that_grows_without_bound_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(2 * IMAGES.max_bytes))
    assert len(bomb) < 200_000
    assert IMAGES.content(BytesIO(bomb)) is None


def test_a_file_of_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / IMAGES.name).open("w+b") as file:
        file.truncate(1 << 40)  # takes no place on the disk
        assert IMAGES.content(file) is None
