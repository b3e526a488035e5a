"""What all data sets have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from mnist_lit.datasets.sampling import split

__all__ = ["MAX_CLASSES", "Fit", "ImageDataset", "Kind"]

Kind = Literal["digits", "drawings", "photographs"]
"""What images show; digits and drawings are white on black."""

Fit = Literal["crop", "pad"]
"""How an image of a folder becomes a square: by the square in its middle, or by black bars at its sides."""

MAX_CLASSES = 5_000
"""Largest number of classes: the confusion matrix of 20,000 would take 3 GB."""


@dataclass(frozen=True, kw_only=True)
class ImageDataset(ABC):
    """A data set of images: what the DataModule and the commands know of it.

    Args:
        name: name of the data set, as in `--data.dataset`.
        kind: what the images show, which decides how a person's own pictures are preprocessed.
        classes: names of the K classes, in the order of the labels 0, 1, …
        shape: shape of an image, (C, H, W).
        train_size: number of training images, those for validation included.
        test_size: number of test images.
        own_val_size: number of validation images that the data set itself names, the last ones of the training images;
            0 if they are chosen among all of these.
        test_names: paths of the test images, or None if these have numbers only.
        digests: checksums of the training and of the test set, or None if these are always the same.
    """

    name: str
    kind: Kind
    classes: Sequence[str]
    shape: tuple[int, int, int]
    train_size: int
    test_size: int
    own_val_size: int = 0
    test_names: Sequence[str] | None = None
    digests: Sequence[str] | None = None

    @abstractmethod
    def fetch(self, data_dir: str | Path, mirrors: Sequence[str] | None = None) -> None:
        """Make sure that the files are there and right, by downloading those that are not.

        Args:
            data_dir: folder of all data sets.
            mirrors: URLs to download from, instead of the data set's own.

        Raises:
            OSError: naming the file and every mirror tried, or the folder that cannot be written.
        """

    @abstractmethod
    def read(self, data_dir: str | Path, *, train: bool) -> tuple[Tensor, Tensor]:
        """Return pixels uint8 (N, C, H, W), 0-255, and labels int64 (N,), of the training or the test set.

        Raises:
            OSError: if a file is missing or damaged: call `fetch` first.
            ValueError: if the files have other shapes or numbers of images than the data set, or labels of no class.
        """

    def checked(self, pixels: Tensor, labels: Tensor, *, train: bool) -> tuple[Tensor, Tensor]:
        """Return pixels and labels that were read, or raise ValueError if they do not fit this data set."""
        size, most = self.train_size if train else self.test_size, len(self.classes) - 1
        if (len(labels), *pixels.shape) != (size, size, *self.shape):
            found = f"{len(labels):,} labels and pixels {tuple(pixels.shape)}"
            raise ValueError(f"{self.name}: {found}, expected {size:,} and {(size, *self.shape)}")
        if not 0 <= labels.min() <= labels.max() <= most:
            raise ValueError(f"{self.name}: labels {labels.min()} to {labels.max()}, expected 0 to {most}")
        return pixels, labels.long()

    def split(self, labels: Tensor, val_size: int, seed: int) -> tuple[list[int], list[int]]:
        """Return the indices of the training and the validation images, see `sampling.split`."""
        return split(labels, val_size, seed)
