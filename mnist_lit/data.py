"""The LightningDataModule: the training, validation and test sets and their batches."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, DistributedSampler, Subset

from mnist_lit.datasets.augmentation import Augmentation
from mnist_lit.datasets.catalog import find_dataset
from mnist_lit.datasets.dataset import Fit
from mnist_lit.datasets.sampling import Batch, InMemoryDataset, identity_collate
from mnist_lit.system.values import plain

__all__ = ["MNISTDataModule"]


class MNISTDataModule(LightningDataModule):
    """MNIST, another data set of `datasets/catalog.py`, or a folder of images.

    A batch has uint8 pixels 0-255, (B, C, H, W), and int64 labels (B,). Augmented pixels are float32. Training drops
    the last incomplete batch, evaluation drops nothing. The training order follows torch's initial seed and the epoch:
    with several processes, call `seed_everything`, so that all have the same seed. The split follows `split_seed` only.

    Args:
        batch_size: images of a training batch, of all processes together.
        val_size: number of training images held out for validation; by default 5,000, but at most a tenth; a folder
            `val` is always the whole validation set. With 0, give the Trainer `limit_val_batches=0`.
        split_seed: seed of the choice of validation images.
        dataset: MNIST, FashionMNIST, KMNIST, CIFAR10, or the path of a folder of images (see `read_folder`).
        image_size: height and width to which the images of a folder are scaled, in pixels; by default 32.
        fit: how the images of a folder become squares: `crop` cuts out the middle, `pad` adds black bars.
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
        fit: Fit = "crop",
        data_dir: str = "data",
        mirrors: Sequence[str] | None = None,
        **augmentation: Any,
    ) -> None:
        super().__init__()
        given = plain([batch_size, val_size, split_seed, dataset, image_size])  # maybe NumPy's numbers, or a Path
        batch_size, val_size, split_seed, dataset, image_size = given
        augmentation = plain(augmentation)
        self.dataset = find_dataset(dataset, image_size, data_dir, mirrors, fit)
        train_size, own_val_size = self.dataset.train_size, self.dataset.own_val_size
        if own_val_size and (val_size not in {None, own_val_size} or split_seed):
            images = f"{dataset} has {own_val_size:,} validation images of its own"
            raise ValueError(f"val_size {val_size} and split_seed {split_seed}: {images}: leave these settings out")
        val_size = own_val_size or (min(5_000, train_size // 10) if val_size is None else val_size)
        if not 0 <= val_size < train_size:
            raise ValueError(f"val_size must be at least 0 and less than {train_size:,}, got {val_size}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if split_seed < 0:
            raise ValueError(f"split_seed must be at least 0, got {split_seed}")
        self.augment = Augmentation(min(self.dataset.shape[1:]), **augmentation)
        # `val_size` is saved as it is now. The folder and the mirrors belong to a machine, not to the experiment.
        self.save_hyperparameters(ignore=["data_dir", "mirrors"])
        self.batch_size, self.val_size, self.split_seed = batch_size, val_size, split_seed
        self.data_dir, self.mirrors = data_dir, mirrors

    def prepare_data(self) -> None:
        """Download missing or damaged files, in one process."""
        self.dataset.fetch(self.data_dir, self.mirrors)

    def setup(self, stage: str) -> None:
        """Read and verify the sets of a stage, which stay in memory as uint8."""
        if stage in {"fit", "validate"}:
            pixels, labels = self.dataset.read(self.data_dir, train=True)
            train, val = self.dataset.split(labels, self.val_size, self.split_seed)
            images = InMemoryDataset(pixels, labels)
            self.train_set, self.val_set = Subset(images, train), Subset(images, val)
            self.seed = torch.initial_seed()  # now: in each epoch, torch has another one
        else:
            self.test_set = InMemoryDataset(*self.dataset.read(self.data_dir, train=False))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled full batches. Each process has its part of a batch; the Trainer sets the sampler's epoch."""
        # In one process, too: its order is a function of the seed and the epoch, so that an interrupted run can resume.
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        order: DistributedSampler[Batch] = DistributedSampler(
            self.train_set, processes, rank, seed=self.seed, drop_last=True
        )
        return DataLoader(
            self.train_set,
            batch_size=self.batch_size // processes,
            sampler=order,
            drop_last=True,
            collate_fn=identity_collate,
            generator=torch.Generator(),  # its own, so that the loader does not use up the epoch's random numbers
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches, in shuffled order, the same in every epoch; every process has all of them."""
        return DataLoader(self.val_set, batch_size=self.batch_size, collate_fn=identity_collate)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, in the order of the files; every process has all of them."""
        return DataLoader(self.test_set, batch_size=self.batch_size, collate_fn=identity_collate)

    predict_dataloader = test_dataloader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002  # Lightning's hook
        """Augment a training batch on its device, if a setting of `Augmentation` is not 0."""
        if not (self.augment and self.trainer and self.trainer.training):
            return batch
        pixels, labels = batch
        return self.augment(pixels, self.trainer.current_epoch), labels

    def state_dict(self) -> dict[str, Any]:
        """Return the names of the classes, and checksums of a folder's images: checkpoints contain them."""
        return {"classes": list(self.dataset.classes), "digests": self.dataset.digests}
