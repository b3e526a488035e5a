"""The data sets in MNIST's format, 60,000 + 10,000 images of ten classes, as torchvision lists them."""

import zlib
from dataclasses import dataclass
from gzip import GzipFile
from hashlib import file_digest, md5
from io import SEEK_END, BufferedIOBase, BytesIO
from pathlib import Path
from typing import Literal

from torchvision.datasets import KMNIST, MNIST, FashionMNIST

__all__ = ["DATASETS", "DatasetName", "IDXFile", "ImageDataset"]

DatasetName = Literal["MNIST", "FashionMNIST", "KMNIST"]
MAX_BYTES = 16 + 60_000 * 28 * 28  # of the largest file, uncompressed: no more is ever read
CONTENT_MD5 = {  # of the uncompressed files, in the order of torchvision's list
    MNIST: (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    FashionMNIST: (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}


@dataclass(frozen=True)
class IDXFile:
    """One file: its name without `.gz`, the md5 sum as published (with `.gz`) and, where known, of its content."""

    name: str
    md5: str
    content_md5: str | None

    def content(self, file: BufferedIOBase) -> bytearray | None:
        """Return the uncompressed content of `file`, or None if it is not the published one.

        Where the sum of the content is known, a file compressed anew or not compressed will do as well.
        """
        if file.seek(0, SEEK_END) > MAX_BYTES:  # no minutes are spent on the sum of another file's gigabytes
            return None
        published = self._is_published(file)
        content = _decompress(file)
        if published:
            return content
        if content is None:
            file.seek(0)
            content = bytearray(file.read(MAX_BYTES + 1))
        return content if _md5(BytesIO(content)) == self.content_md5 else None

    def is_right(self, file: BufferedIOBase) -> bool:
        """Return whether `content` finds the published one; a file as published is not even decompressed."""
        return self._is_published(file) or self.content(file) is not None

    def _is_published(self, file: BufferedIOBase) -> bool:
        return file.seek(0, SEEK_END) <= MAX_BYTES and _md5(file) == self.md5


@dataclass(frozen=True)
class ImageDataset:
    """One data set: the names of its ten classes, and where its files come from."""

    name: DatasetName
    classes: tuple[str, ...]
    mirrors: tuple[str, ...]
    train: tuple[IDXFile, IDXFile]
    """Images and labels."""
    test: tuple[IDXFile, IDXFile]


def _decompress(file: BufferedIOBase) -> bytearray | None:
    """Return what is in a gzip file, or None if it is none, damaged, or larger than any of the data sets' files."""
    try:
        file.seek(-4, SEEK_END)  # where the length of the content stands
        content = bytearray(min(int.from_bytes(file.read(4), "little"), MAX_BYTES))
        file.seek(0)
        with GzipFile(fileobj=file) as stream:
            whole = stream.readinto(content) == len(content) and not stream.read(1)
    except (OSError, EOFError, zlib.error):
        return None
    return content if whole else None


def _md5(file: BufferedIOBase) -> str:
    file.seek(0)
    return file_digest(file, md5).hexdigest()  # the published sums are md5: against damage, not malice


def _dataset(name: DatasetName, listed: type[MNIST], *own_mirrors: str) -> ImageDataset:
    sums = CONTENT_MD5.get(listed, (None,) * 4)
    files = [
        IDXFile(file.removesuffix(".gz"), published, content)
        for (file, published), content in zip(listed.resources, sums, strict=True)
    ]
    classes = tuple(label.partition(" - ")[0] for label in listed.classes)  # torchvision has '4 - four'
    return ImageDataset(name, classes, (*own_mirrors, *listed.mirrors), (files[0], files[1]), (files[2], files[3]))


DATASETS: dict[DatasetName, ImageDataset] = {
    "MNIST": _dataset("MNIST", MNIST, (Path(__file__).parent / "mnist").as_uri()),
    "FashionMNIST": _dataset("FashionMNIST", FashionMNIST),
    "KMNIST": _dataset("KMNIST", KMNIST),
}
