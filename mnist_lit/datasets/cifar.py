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

from mnist_lit.datasets.dataset import Kind
from mnist_lit.datasets.downloads import PublishedDataset, PublishedFile, find

__all__ = ["CIFARDataset"]

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class CIFARDataset(PublishedDataset):
    """A data set of one archive with batches of images.

    Args:
        archive: name and md5 checksum of the published archive (tar.gz).
        train_files: paths of the training set's files in the archive.
        test_files: the same of the test set.
    """

    archive: tuple[str, str]
    train_files: Sequence[str]
    test_files: Sequence[str]
    kind: Kind = "photographs"

    @property
    def published_files(self) -> list[PublishedFile]:
        """The archive."""
        return [PublishedFile(*self.archive)]

    def read(self, data_dir: str | Path, *, train: bool) -> tuple[Tensor, Tensor]:
        """Return pixels and labels, see `ImageDataset.read`."""
        size = self.train_size if train else self.test_size
        pixels, labels = np.empty((size, *self.shape), np.uint8), np.empty(size, np.int64)
        first = 0
        for rows, numbers in self._batches(data_dir, self.train_files if train else self.test_files):
            if (last := first + len(rows)) <= size:
                pixels[first:last] = rows.reshape(-1, *self.shape)
                labels[first:last] = numbers
            first = last
        if first != size:
            raise ValueError(f"{self.name}: {first:,} images, expected {size:,}")
        if labels.max() >= len(self.classes):
            raise ValueError(f"{self.name}: labels up to {labels.max()}, expected {len(self.classes)} classes")
        return torch.from_numpy(pixels), torch.from_numpy(labels)

    def _batches(self, data_dir: str | Path, names: Sequence[str]) -> Iterator[tuple[Bytes, Bytes]]:
        """Yield the pixels (N, C·H·W) and labels (N,) of the files of these names, in their order."""
        [archive] = self.published_files
        if (content := find(path := self.folder(data_dir) / archive.name, archive.content)) is None:
            raise OSError(f"{path} is missing or damaged")
        contents = {}
        with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as members:
            for member in members:  # in the order of the archive, which would be unpacked again for each step back
                if member.name in names and (file := members.extractfile(member)):
                    contents[member.name] = file.read()
        for name in names:
            records = np.frombuffer(contents.pop(name), np.uint8).reshape(-1, 1 + prod(self.shape))
            yield records[:, 1:], records[:, 0]
