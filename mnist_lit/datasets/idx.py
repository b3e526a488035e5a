"""Data sets in MNIST's file format, IDX: verified at every start, downloaded where missing or damaged.

The folders are torchvision's, `data_dir/<data set>/raw`, and compressed files that torchvision has left there are used
if they are right. No unverified byte is used.
"""

from dataclasses import dataclass
from gzip import decompress
from pathlib import Path

import torch
from torch import Tensor

from mnist_lit.datasets.dataset import Kind
from mnist_lit.datasets.downloads import PublishedDataset

__all__ = ["IDXDataset"]


@dataclass(frozen=True, kw_only=True)
class IDXDataset(PublishedDataset):
    """A data set of four files, in gzip: training images and labels, test images and labels, in this order.

    The defaults are MNIST's.
    """

    shape: tuple[int, int, int] = (1, 28, 28)
    train_size: int = 60_000
    test_size: int = 10_000
    kind: Kind = "drawings"

    def folder(self, data_dir: str | Path) -> Path:
        """Return the folder of the files, which is torchvision's."""
        return Path(data_dir, self.name, "raw")

    def read(self, data_dir: str | Path, *, train: bool) -> tuple[Tensor, Tensor]:
        """Return pixels and labels, see `ImageDataset.read`."""
        files = self.published_files[:2] if train else self.published_files[2:]
        images, labels = (_decode(bytearray(decompress(self.content(file, data_dir)))) for file in files)
        return self.checked(images.unsqueeze(1), labels, train=train)


def _decode(content: bytearray) -> Tensor:
    """Return the uint8 tensor of an IDX file: two zero bytes, dtype (8: uint8), rank, dimensions, data."""
    rank = content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * rank).view(shape)
