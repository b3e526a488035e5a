"""The LightningDataModule: the sets, their split and their batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from mnist_lit import idx
from mnist_lit.datasets import DATASETS, DatasetName
from mnist_lit.model import Batch
from mnist_lit.order import EpochShuffle, InOrder, ResumableLoader, split

__all__ = ["TRAIN_IMAGES", "Digits", "MNISTDataModule"]

TRAIN_IMAGES = 60_000


class Digits(Dataset[Batch]):
    """Images and labels in memory, fetched a batch at a time.

    Args:
        pixels: uint8 (N, 1, 28, 28), 0-255.
        labels: int64 (N,), 0-9.
    """

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        """Return one image (1, 28, 28) and its label ()."""
        return self.pixels[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return a whole batch, (B, 1, 28, 28) and (B,): one gather instead of B look-ups and a stack."""
        return self.pixels[indices], self.labels[indices]


class MNISTDataModule(LightningDataModule):
    """MNIST, or one of its likes: 60,000 images to train on, of which `val_size` are held out, and 10,000 to test on.

    Batches are uint8 pixels (B, 1, 28, 28), 0-255, with int64 labels (B,). Training drops the last incomplete batch,
    evaluation drops nothing. The training order follows torch's seed; the split follows only `split_seed`.

    Args:
        batch_size: images in a batch, of all processes together where training is distributed.
        val_size: images held out of the training set; 0 trains on all of it (with the Trainer's `limit_val_batches=0`).
        split_seed: which images are held out.
        dataset: MNIST, FashionMNIST or KMNIST.
        data_dir: where the files are kept, as `data_dir/MNIST/raw/*.gz`.
        mirrors: addresses (https, http, file) of folders with the four files, tried in order; by default the copy of
            MNIST within this package, then torchvision's.

    Raises:
        ValueError: if a setting is out of range.
    """

    def __init__(
        self,
        batch_size: int = 100,
        val_size: int = 5_000,
        split_seed: int = 0,
        dataset: DatasetName = "MNIST",
        data_dir: str = "data",
        mirrors: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if dataset not in DATASETS:
            raise ValueError(f"dataset must be {', '.join(DATASETS)}, got {dataset}")
        if not 0 <= val_size < TRAIN_IMAGES:
            raise ValueError(f"val_size must be at least 0 and less than {TRAIN_IMAGES:,}, got {val_size}")
        if not 1 <= batch_size <= TRAIN_IMAGES - val_size:
            raise ValueError(
                f"batch_size must be 1 to {TRAIN_IMAGES - val_size:,} (the training images), got {batch_size}"
            )
        if split_seed < 0:
            raise ValueError(f"split_seed must be at least 0, got {split_seed}")
        # Where files are belongs to a machine, not to an experiment: a checkpoint does not carry it.
        self.save_hyperparameters(ignore=["data_dir", "mirrors"])
        self.batch_size, self.val_size, self.split_seed = batch_size, val_size, split_seed
        self.dataset, self.data_dir, self.mirrors = DATASETS[dataset], Path(data_dir), mirrors
        self.prepared = False

    def prepare_data(self) -> None:
        """Fetch what is missing or damaged (`idx.fetch`), once: `setup` verifies what it reads."""
        if not self.prepared:
            idx.fetch(self.dataset, self.data_dir, self.mirrors)
            self.prepared = True

    def setup(self, stage: str) -> None:
        """Read the sets that a stage needs into memory, as uint8."""
        if stage in {"fit", "validate"}:
            digits = Digits(*idx.read(self.dataset, self.data_dir, train=True))
            train, val = split(digits.labels, self.val_size, self.split_seed)
            self.train_set, self.val_set = Subset(digits, train), Subset(digits, val)
            self.order_seed = torch.initial_seed()
        else:
            self.test_set = Digits(*idx.read(self.dataset, self.data_dir, train=False))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled full batches."""
        order = EpochShuffle(len(self.train_set), self.order_seed, self.batch_size, *self._share)
        limit = self.trainer.limit_train_batches if self.trainer else 1.0
        return ResumableLoader(limit=limit, dataset=self.train_set, sampler=order, **self._batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches, in the files' order."""
        return DataLoader(self.val_set, sampler=InOrder(len(self.val_set), *self._share), **self._batches)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, in the files' order."""
        return DataLoader(self.test_set, sampler=InOrder(len(self.test_set), *self._share), **self._batches)

    predict_dataloader = test_dataloader

    @property
    def _share(self) -> tuple[int, int]:
        """This process's rank, and how many processes there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def _batches(self) -> dict[str, Any]:
        _, processes = self._share
        if self.batch_size % processes:
            raise ValueError(f"batch_size {self.batch_size} cannot be divided among {processes} processes")
        # No workers: a batch from memory costs less than handing it over from another process.
        return {"batch_size": self.batch_size // processes, "collate_fn": as_fetched}


def as_fetched(batch: Any) -> Any:
    """Pass on what `Digits.__getitems__` has already collated."""
    return batch
