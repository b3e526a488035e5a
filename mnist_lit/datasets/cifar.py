"""Data sets in CIFAR-10's format: one archive, which is verified and read without being extracted.

The archive is the binary version, with a label and the pixels of each image (Krizhevsky 2009, "Learning Multiple Layers
of Features from Tiny Images", https://www.cs.toronto.edu/~kriz/cifar.html): it has no pickles, unlike the one that
torchvision downloads. No unverified byte is used.
"""

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_lit.datasets.dataset import Kind
from mnist_lit.datasets.downloads import PublishedDataset

__all__ = ["CIFARDataset"]


@dataclass(frozen=True, kw_only=True)
class CIFARDataset(PublishedDataset):
    """A data set of one published archive (tar.gz) with batches of images.

    Args:
        train_files: paths of the training set's files in the archive.
        test_files: paths of the test set's files in the archive.
    """

    train_files: Sequence[str]
    test_files: Sequence[str]
    kind: Kind = "photographs"

    def read(self, data_dir: str | Path, *, train: bool) -> tuple[Tensor, Tensor]:
        """Return pixels and labels, see `ImageDataset.read`."""
        rows = np.concatenate(self._records(data_dir, self.train_files if train else self.test_files))
        pixels, labels = (torch.from_numpy(part) for part in (rows[:, 1:].reshape(-1, *self.shape), rows[:, 0]))
        return self.checked(pixels, labels, train=train)

    def _records(self, data_dir: str | Path, names: Sequence[str]) -> list[NDArray[np.uint8]]:
        """Return the label and the pixels of each image, (N, 1 + C·H·W), in the files of these names."""
        [archive] = self.published_files
        contents = {}
        with tarfile.open(fileobj=BytesIO(self.content(archive, data_dir)), mode="r:gz") as members:
            for member in members:  # in the order of the archive, which would be unpacked again for each step back
                if member.name in names and (file := members.extractfile(member)):
                    contents[member.name] = file.read()
        return [np.frombuffer(contents[name], np.uint8).reshape(-1, 1 + prod(self.shape)) for name in names]
