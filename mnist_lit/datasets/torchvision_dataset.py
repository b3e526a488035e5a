"""Classification data sets of torchvision: each is one more entry of `DATASETS`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mnist_lit.datasets.dataset import ImageDataset

__all__ = ["TorchvisionDataset"]


@dataclass(frozen=True, kw_only=True)
class TorchvisionDataset(ImageDataset):
    """A data set of torchvision, read into memory as uint8. Its files are as safe as torchvision makes them.

    Args:
        load: function of the folder of all data sets, and of whether to load the training set and to download it, that
            returns a sequence of images and labels, such as `torchvision.datasets.EMNIST`.

    >>> from torchvision.datasets import FakeData
    >>> fake = TorchvisionDataset(
    ...     name="Fake",
    ...     kind="photographs",
    ...     classes=("a", "b"),
    ...     shape=(3, 8, 8),
    ...     train_size=20,
    ...     test_size=10,
    ...     load=lambda folder, train, download: FakeData(20 if train else 10, (3, 8, 8), 2),
    ... )
    >>> fake.read("data", train=True)[0].shape
    torch.Size([20, 3, 8, 8])
    """

    load: Callable[[str, bool, bool], Any]

    def fetch(self, data_dir: str | Path, mirrors: Sequence[str] | None = None) -> None:
        """Let torchvision download what is not there."""
        if mirrors:
            raise ValueError(f"mirrors: torchvision has its own for {self.name}: leave them out")
        for train in (True, False):
            self._load(data_dir, train=train, download=True)

    def read(self, data_dir: str | Path, *, train: bool) -> tuple[Tensor, Tensor]:
        """Return pixels and labels, see `ImageDataset.read`."""
        images, labels = [], []
        for image, label in self._load(data_dir, train=train, download=False):
            images.append(np.atleast_3d(image.convert("L" if self.shape[0] == 1 else "RGB")))  # (H, W, C)
            labels.append(int(label))
        if len({image.shape for image in images}) > 1:
            raise ValueError(f"{self.name}: its images have several sizes, and a data set has one")
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()  # (N, C, H, W)
        return self.checked(pixels, torch.tensor(labels), train=train)

    def _load(self, data_dir: str | Path, *, train: bool, download: bool) -> Any:
        try:
            return self.load(str(data_dir), train, download)
        except RuntimeError as error:  # torchvision's, about files that are missing or damaged
            raise OSError(f"{self.name}: torchvision cannot read or download its files: {error}") from error
