"""Data sets in MNIST's file format, IDX: verified at every start, downloaded where missing or damaged.

The folders are torchvision's, `data_dir/<data set>/raw`, and compressed files that torchvision has left there are used
if they are right. No unverified byte is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from gzip import decompress
from pathlib import Path

import torch
from torch import Tensor

from mnist_lit.datasets.dataset import Kind
from mnist_lit.datasets.downloads import PublishedDataset, PublishedFile

__all__ = ["IDXDataset"]


@dataclass(frozen=True, kw_only=True)
class IDXDataset(PublishedDataset):
    """A data set of four files: training images and labels, test images and labels, each in gzip.

    Args:
        files: names, ending in `.gz`, and md5 checksums of the four files, in the order above.
    """

    files: Sequence[tuple[str, str]]
    kind: Kind = "drawings"

    def __post_init__(self) -> None:
        if self.shape[0] != 1:
            raise ValueError(f"{self.name}: an image in this format has one channel, not {self.shape[0]}")

    @property
    def published_files(self) -> list[PublishedFile]:
        """The four files."""
        return [PublishedFile(*file) for file in self.files]

    def folder(self, data_dir: str | Path) -> Path:
        """Return the folder of the files, which is torchvision's."""
        return Path(data_dir, self.name, "raw")

    def read(self, data_dir: str | Path, *, train: bool) -> tuple[Tensor, Tensor]:
        """Return pixels and labels, see `ImageDataset.read`."""
        size, tensors = self.train_size if train else self.test_size, []
        files = self.published_files[:2] if train else self.published_files[2:]
        for file, shape in zip(files, ((size, *self.shape[1:]), (size,)), strict=True):
            tensor = _decode(bytearray(decompress(self.content(file, data_dir))))
            if tensor.shape != shape:
                raise ValueError(f"{self.folder(data_dir) / file.name}: shape {tuple(tensor.shape)}, expected {shape}")
            tensors.append(tensor)
        images, labels = tensors
        self.check_labels(labels)
        return images.unsqueeze(1), labels.long()


def _decode(content: bytearray) -> Tensor:
    """Return the uint8 tensor of an IDX file: two zero bytes, dtype (8: uint8), rank, dimensions, data."""
    rank = content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * rank).view(shape)
