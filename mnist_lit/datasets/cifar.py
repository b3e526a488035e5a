"""Data sets in CIFAR-10's formats: the published archive, or the batches that torchvision has extracted.

The archive is the binary version, with a label and the pixels of each image (Krizhevsky 2009, "Learning Multiple Layers
of Features from Tiny Images", https://www.cs.toronto.edu/~kriz/cifar.html). Torchvision's batches are pickles: they are
verified, and then nothing but arrays and plain values is accepted in them. No unverified byte is used.
"""

import pickle
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_lit.datasets.downloads import MAX_FILE_BYTES, Kind, PublishedDataset, fetch, find, has_md5

__all__ = ["CIFARDataset"]

ALLOWED_GLOBALS = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": lambda code, align, copy: np.dtype(code, bool(align), bool(copy)),  # Python 2 saved integers
    "numpy.core.multiarray._reconstruct": np.empty(0).__reduce__()[0],  # NumPy 2 has it under another name
}
"""The globals that the pickle of an array refers to."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class PlainFile:
    """A published file that is used as it is.

    Args:
        name: as published.
        md5: checksum of its content.
    """

    name: str
    md5: str

    @property
    def names(self) -> tuple[str]:
        """Its name."""
        return (self.name,)

    def is_valid(self, file: BufferedIOBase) -> bool:
        """Return whether `file` has the published content."""
        return has_md5(file, self.md5)

    def content(self, file: BufferedIOBase) -> bytes | None:
        """Return the content of `file`, or None if it is not the published one."""
        content = file.read(MAX_FILE_BYTES + 1)
        return content if has_md5(BytesIO(content), self.md5) else None


@dataclass(frozen=True)
class CIFARDataset(PublishedDataset):
    """A data set of one archive with batches of images.

    Args:
        name: name of the data set.
        classes: names of the K classes, in the order of the labels 0, 1, …
        shape: shape of an image, (C, H, W).
        train_size: number of training images.
        test_size: number of test images.
        archive: name and md5 checksum of the published archive (tar.gz of `*.bin` files).
        folder: folder of the batches in the archive.
        extracted_folder: folder of torchvision's batches, in the folder of all data sets.
        train_batches: names and md5 checksums of torchvision's training batches.
        test_batches: the same of the test set. In the archive, the names end in `.bin`.
        mirrors: URLs (https, http, file) of folders with the archive, tried in order.
        kind: what the images show.
    """

    name: str
    classes: Sequence[str]
    shape: tuple[int, int, int]
    train_size: int
    test_size: int
    archive: tuple[str, str]
    folder: str
    extracted_folder: str
    train_batches: Sequence[Sequence[str]]
    test_batches: Sequence[Sequence[str]]
    mirrors: Sequence[str] = ()
    kind: Kind = "photographs"

    def fetch(self, data_dir: str | Path, mirrors: Sequence[str] | None = None) -> None:
        """Make sure that the archive or torchvision's batches are there and right; download the archive if not.

        Args:
            data_dir: folder of all data sets.
            mirrors: instead of the data set's own.

        Raises:
            OSError: naming the archive and every mirror tried, or the folder that cannot be written.
        """
        extracted = [PlainFile(name, md5) for name, md5 in (*self.train_batches, *self.test_batches)]
        if not all(find(Path(data_dir, self.extracted_folder), file, file.is_valid) for file in extracted):
            fetch(Path(data_dir, self.name), [PlainFile(*self.archive)], mirrors or self.mirrors)

    def read(self, data_dir: str | Path, *, train: bool) -> tuple[Tensor, Tensor]:
        """Return pixels uint8 (N, C, H, W), 0-255, and labels int64 (N,), of the training or the test set.

        Raises:
            OSError: if the files are missing or damaged: call `fetch` first.
            ValueError: if they have another number of images than the entry, or more labels than classes.
        """
        size = self.train_size if train else self.test_size
        pixels, labels = np.empty((size, *self.shape), np.uint8), np.empty(size, np.int64)
        first = 0
        for rows, numbers in self._batches(Path(data_dir), self.train_batches if train else self.test_batches):
            if (last := first + len(rows)) <= size:
                pixels[first:last] = rows.reshape(-1, *self.shape)
                labels[first:last] = numbers
            first = last
        if first != size:
            raise ValueError(f"{self.name}: {first:,} images, expected {size:,}")
        if labels.max() >= len(self.classes):
            raise ValueError(f"{self.name}: labels up to {labels.max()}, expected {len(self.classes)} classes")
        return torch.from_numpy(pixels), torch.from_numpy(labels)

    def _batches(self, data_dir: Path, batches: Sequence[Sequence[str]]) -> Iterator[tuple[Bytes, Bytes]]:
        """Yield the pixels (N, C·H·W) and labels (N,) of each batch."""
        archive = PlainFile(*self.archive)
        if content := find(Path(data_dir, self.name), archive, archive.content):
            yield from self._unpack(content, [f"{self.folder}/{name}.bin" for name, _ in batches])
            return
        for name, md5 in batches:
            file = PlainFile(name, md5)
            if (content := find(data_dir / self.extracted_folder, file, file.content)) is None:
                raise OSError(f"{data_dir / self.name / archive.name} is missing or damaged")
            batch = ArrayUnpickler(BytesIO(content), encoding="latin1").load()
            yield batch["data"], np.array(batch["labels"], dtype=np.uint8)

    def _unpack(self, archive: bytes, names: Sequence[str]) -> Iterator[tuple[Bytes, Bytes]]:
        """Yield the batches of these names, in their order."""
        contents = {}
        with tarfile.open(fileobj=BytesIO(archive), mode="r:gz") as members:
            for member in members:  # in the order of the archive, which would be unpacked again for each step back
                if member.name in names and (file := members.extractfile(member)):
                    contents[member.name] = file.read()
        for name in names:
            records = np.frombuffer(contents.pop(name), np.uint8).reshape(-1, 1 + prod(self.shape))
            yield records[:, 1:], records[:, 0]


class ArrayUnpickler(pickle.Unpickler):
    """Loads arrays and plain values, and refuses all that could run code."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return what an array consists of.

        Raises:
            pickle.UnpicklingError: for any other global.
        """
        if (name := f"{module_name}.{global_name}") not in ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"{name} is not part of an array")
        return ALLOWED_GLOBALS[name]
