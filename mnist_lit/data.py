"""The LightningDataModule: the sets, their split and their batches."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Generator
from torch.utils.data import DataLoader, Subset

from mnist_lit import idx
from mnist_lit.augment import warp
from mnist_lit.batches import Digits, ResumableLoader, as_fetched
from mnist_lit.datasets import DATASETS, DatasetName
from mnist_lit.model import SIDE, Batch
from mnist_lit.order import EpochShuffle, InOrder, mixed, split

__all__ = ["TRAIN_IMAGES", "MNISTDataModule"]

TRAIN_IMAGES = 60_000
MOST = {"rotation": 180, "shift": SIDE, "scaling": 1, "shear": 1, "elastic": SIDE}
AUGMENTATION = 1  # sets its random numbers apart from those of dropout


class MNISTDataModule(LightningDataModule):
    """MNIST, or one of its likes: 60,000 images to train on, of which `val_size` are held out, and 10,000 to test on.

    Batches are uint8 pixels (B, 1, 28, 28), 0-255, with int64 labels (B,). Training drops the last incomplete batch,
    evaluation drops nothing. The training order follows torch's seed in the first process, which checkpoints keep; the
    split follows only `split_seed`. Training images are augmented if it is asked for (see `augment.warp`),
    differently each time; they are float32 then.

    Args:
        batch_size: images in a batch, of all processes together where training is distributed.
        val_size: images held out of the training set; 0 trains on all of it (with the Trainer's `limit_val_batches=0`).
        split_seed: which images are held out.
        rotation: training turns each image by up to so many degrees.
        shift: training moves each image by up to so many pixels.
        scaling: training resizes each image by up to this share.
        shear: training slants each image by up to so many pixels for each pixel down.
        elastic: training bends each image by about so many pixels.
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
        *,
        rotation: float = 0.0,
        shift: float = 0.0,
        scaling: float = 0.0,
        shear: float = 0.0,
        elastic: float = 0.0,
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
        self.augmentation = {
            "rotation": rotation,
            "shift": shift,
            "scaling": scaling,
            "shear": shear,
            "elastic": elastic,
        }
        for name, value in self.augmentation.items():
            if not 0 <= value < MOST[name]:
                raise ValueError(f"{name} must be at least 0 and less than {MOST[name]}, got {value}")
        # Where files are belongs to a machine, not to an experiment: a checkpoint does not carry it.
        self.save_hyperparameters(ignore=["data_dir", "mirrors"])
        self.batch_size, self.val_size, self.split_seed = batch_size, val_size, split_seed
        self.dataset, self.data_dir, self.mirrors = DATASETS[dataset], Path(data_dir), mirrors
        self.prepared = False
        self.order_seed = torch.initial_seed()

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
            if self.trainer:  # processes may have different ones
                self.order_seed = self.trainer.strategy.broadcast(self.order_seed)
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

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002  # Lightning's hook
        """Augment a training batch, on the device of the training, as a function of seed and step only."""
        if not (any(self.augmentation.values()) and self.trainer and self.trainer.training):
            return batch
        pixels, labels = batch
        before = self.trainer.fit_loop.total_batch_idx + 1  # batches; this one is counted after its transfer
        generator = Generator(pixels.device)
        generator.manual_seed(mixed(self.order_seed, before, self.trainer.global_rank, AUGMENTATION))
        return warp(pixels, **self.augmentation, generator=generator), labels

    def state_dict(self) -> dict[str, int]:
        """Return the seed of the training order and of augmentation."""
        return {"order_seed": self.order_seed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on with the order of a training that was not seeded; a seed that is given wins (`seed_everything`)."""
        if "PL_GLOBAL_SEED" not in os.environ:
            self.order_seed = state_dict["order_seed"]

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
