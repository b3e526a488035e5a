"""Data sets in CIFAR-10's format: one archive, which is verified and read without being extracted.

The archive is the binary version, with a label and the pixels of each image (Krizhevsky 2009, "Learning Multiple Layers
of Features from Tiny Images", https://www.cs.toronto.edu/~kriz/cifar.html): it has no pickles, unlike the one that
torchvision downloads. No unverified byte is used.
"""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_lit.datasets.downloads import Kind, PublishedDataset, PublishedFile, fetch, find

__all__ = ["CIFARDataset"]

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class CIFARDataset(PublishedDataset):
    """A data set of one archive with batches of images.

    Args:
        name: name of the data set.
        classes: names of the K classes, in the order of the labels 0, 1, …
        shape: shape of an image, (C, H, W).
        train_size: number of training images.
        test_size: number of test images.
        archive: name and md5 checksum of the published archive (tar.gz).
        train_files: paths of the training set's files in the archive.
        test_files: the same of the test set.
        mirrors: URLs (https, http, file) of folders with the archive, tried in order.
        kind: what the images show.
    """

    name: str
    classes: Sequence[str]
    shape: tuple[int, int, int]
    train_size: int
    test_size: int
    archive: tuple[str, str]
    train_files: Sequence[str]
    test_files: Sequence[str]
    mirrors: Sequence[str] = ()
    kind: Kind = "photographs"

    def fetch(self, data_dir: str | Path, mirrors: Sequence[str] | None = None) -> None:
        """Make sure that the archive is there and right, by downloading it if it is not.

        Args:
            data_dir: folder of all data sets.
            mirrors: URLs to download from, instead of the data set's own.

        Raises:
            OSError: naming the archive and every mirror tried, or the folder that cannot be written.
        """
        fetch(Path(data_dir, self.name), [PublishedFile(*self.archive)], mirrors or self.mirrors)

    def read(self, data_dir: str | Path, *, train: bool) -> tuple[Tensor, Tensor]:
        """Return pixels uint8 (N, C, H, W), 0-255, and labels int64 (N,), of the training or the test set.

        Raises:
            OSError: if the archive is missing or damaged: call `fetch` first.
            ValueError: if they have another number of images than the entry, or more labels than classes.
        """
        size = self.train_size if train else self.test_size
        pixels, labels = np.empty((size, *self.shape), np.uint8), np.empty(size, np.int64)
        first = 0
        for rows, numbers in self._batches(Path(data_dir), self.train_files if train else self.test_files):
            if (last := first + len(rows)) <= size:
                pixels[first:last] = rows.reshape(-1, *self.shape)
                labels[first:last] = numbers
            first = last
        if first != size:
            raise ValueError(f"{self.name}: {first:,} images, expected {size:,}")
        if labels.max() >= len(self.classes):
            raise ValueError(f"{self.name}: labels up to {labels.max()}, expected {len(self.classes)} classes")
        return torch.from_numpy(pixels), torch.from_numpy(labels)

    def _batches(self, data_dir: Path, names: Sequence[str]) -> Iterator[tuple[Bytes, Bytes]]:
        """Yield the pixels (N, C·H·W) and labels (N,) of the files of these names, in their order."""
        archive = PublishedFile(*self.archive)
        path = data_dir / self.name / archive.name
        if (content := find(path, archive.content)) is None:
            raise OSError(f"{path} is missing or damaged")
        contents = {}
        with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as members:
            for member in members:  # in the order of the archive, which would be unpacked again for each step back
                if member.name in names and (file := members.extractfile(member)):
                    contents[member.name] = file.read()
        for name in names:
            records = np.frombuffer(contents.pop(name), np.uint8).reshape(-1, 1 + prod(self.shape))
            yield records[:, 1:], records[:, 0]
