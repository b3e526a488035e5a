"""The LightningDataModule: the training, validation and test sets and their batches."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Generator
from torch.utils.data import DataLoader, Subset

from mnist_lit.augment import Augmentation
from mnist_lit.datasets.catalog import find_dataset
from mnist_lit.datasets.loading import Batch, InMemoryDataset, ResumableDataLoader, identity_collate
from mnist_lit.datasets.sampling import ShardedSampler, ShuffledSampler, derive_seed, split

__all__ = ["MNISTDataModule"]

AUGMENTATION = 1  # sets its random numbers apart from those of dropout


class MNISTDataModule(LightningDataModule):
    """MNIST, another data set of `datasets/catalog.py`, or a folder of images.

    Batches are uint8 pixels (B, C, H, W), 0-255, with int64 labels (B,). Training drops the last incomplete batch,
    evaluation drops nothing. The training order follows torch's seed in the first process, which checkpoints keep; the
    split follows only `split_seed`. Training images are augmented on the device, differently in each epoch, if a
    setting of `Augmentation` is not 0; they are float32 then.

    Args:
        batch_size: images of a batch, of all processes together.
        val_size: images held out of the training set for validation, by default 5,000 or, if that is less, a tenth of
            it; with 0, give the Trainer `limit_val_batches=0`.
        split_seed: seed of the choice of validation images.
        dataset: MNIST, FashionMNIST, KMNIST, CIFAR10, or the path of a folder of images (see `read_folder`).
        image_size: height and width to which the images of a folder are scaled, in pixels; by default 32.
        data_dir: folder of the data files, `data_dir/MNIST/raw/*.gz`, and of decoded images, `data_dir/folders`.
        mirrors: URLs (https, http, file) of folders with the files, tried in order; by default those in the catalog.
        **augmentation: keyword arguments passed to `Augmentation`.

    Raises:
        ValueError: if a setting is out of range.
    """

    def __init__(
        self,
        batch_size: int = 100,
        val_size: int | None = None,
        split_seed: int = 0,
        *,
        dataset: str = "MNIST",
        image_size: int | None = None,
        data_dir: str = "data",
        mirrors: Sequence[str] | None = None,
        **augmentation: Any,
    ) -> None:
        super().__init__()
        self.dataset = find_dataset(dataset, image_size, data_dir, mirrors)
        self.data_dir, self.mirrors = data_dir, mirrors
        train_size = self.dataset.train_size
        val_size = min(5_000, train_size // 10) if val_size is None else val_size
        if not 0 <= val_size < train_size:
            raise ValueError(f"val_size must be at least 0 and less than {train_size:,}, got {val_size}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if split_seed < 0:
            raise ValueError(f"split_seed must be at least 0, got {split_seed}")
        self.augment = Augmentation(min(self.dataset.shape[1:]), **augmentation)
        # They belong to a machine, not to the experiment: checkpoints do not contain them.
        self.save_hyperparameters(ignore=["data_dir", "mirrors"])
        self.batch_size, self.val_size, self.split_seed = batch_size, val_size, split_seed
        self.prepared, self.trained_on = False, torch.empty(0, dtype=torch.int64)
        self.order_seed = torch.initial_seed()

    def prepare_data(self) -> None:
        """Download missing or damaged files, once; `setup` verifies what it reads."""
        if not self.prepared:
            self.dataset.fetch(self.data_dir, self.mirrors)
            self.prepared = True

    def setup(self, stage: str) -> None:
        """Read the sets of a stage into memory, as uint8; images to train on a GPU into the GPU's."""
        if stage in {"fit", "validate"}:
            images = InMemoryDataset(*self.dataset.read(self.data_dir, train=True))
            train, val = split(images.labels, self.val_size, self.split_seed)
            if stage == "fit" and self.batch_size > len(train):
                raise ValueError(f"batch_size must be at most {len(train):,}, the training images")
            if stage == "fit" and self.dataset.hashes:  # of a folder, whose images may be others the next time
                self.trained_on = torch.unique(torch.cat([self.trained_on, self.dataset.hashes[0][train]]))
            if stage == "fit" and self.trainer:
                images = images.to(self.trainer.strategy.root_device)
            self.train_set, self.val_set = Subset(images, train), Subset(images, val)
            self.order_seed = torch.initial_seed()
            if self.trainer:  # processes may have different seeds
                self.order_seed = self.trainer.strategy.broadcast(self.order_seed)
        else:
            self.test_set = InMemoryDataset(*self.dataset.read(self.data_dir, train=False))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled full batches."""
        sampler = ShuffledSampler(len(self.train_set), self.order_seed, self.batch_size, *self._shard)
        limit = self.trainer.limit_train_batches if self.trainer else 1.0
        return ResumableDataLoader(limit=limit, dataset=self.train_set, sampler=sampler, **self._batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches, in the order of the files."""
        return DataLoader(self.val_set, sampler=ShardedSampler(len(self.val_set), *self._shard), **self._batches)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, in the order of the files."""
        return DataLoader(self.test_set, sampler=ShardedSampler(len(self.test_set), *self._shard), **self._batches)

    predict_dataloader = test_dataloader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002  # Lightning's hook
        """Augment a training batch on its device, as a function of the seed and the step only."""
        if not (self.augment and self.trainer and self.trainer.training):
            return batch
        pixels, labels = batch
        step = self.trainer.fit_loop.total_batch_idx + 1  # this batch is counted after its transfer
        generator = Generator(pixels.device)
        generator.manual_seed(derive_seed(self.order_seed, step, self.trainer.global_rank, AUGMENTATION))
        return self.augment(pixels, generator), labels

    def state_dict(self) -> dict[str, Any]:
        """Return the seed of the training order and of augmentation, the classes, and which images were trained on."""
        images = {"digests": self.dataset.digests, "trained_on": self.trained_on}
        return {"order_seed": self.order_seed, "classes": list(self.dataset.classes), **images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume the order of a training without a seed; a seed set by `seed_everything` wins."""
        self.trained_on = torch.unique(torch.cat([self.trained_on, state_dict.get("trained_on", self.trained_on)]))
        if "PL_GLOBAL_SEED" not in os.environ:
            self.order_seed = state_dict["order_seed"]

    @property
    def _shard(self) -> tuple[int, int]:
        """The rank of this process, and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def _batches(self) -> dict[str, Any]:
        _, processes = self._shard
        if self.batch_size % processes:
            raise ValueError(f"batch_size {self.batch_size} cannot be divided among {processes} processes")
        # No workers: a batch from memory costs less than its transfer from another process.
        return {"batch_size": self.batch_size // processes, "collate_fn": identity_collate}
