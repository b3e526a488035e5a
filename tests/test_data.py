"""The data module: batches, splits, order, augmentation and its settings."""

from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.sampling import Batch, identity_collate, split


def set_up(data_dir: Path, stage: str, batch_size: int = 100, val_size: int = 5_000) -> MNISTDataModule:
    data = MNISTDataModule(batch_size, val_size, data_dir=str(data_dir))
    data.prepare_data()
    data.setup(stage)
    return data


def labels_of(loader: DataLoader[Batch], batches: int | None = None) -> Tensor:
    return torch.cat([labels for _, labels in islice(loader, batches)])


@pytest.mark.parametrize(("batch_size", "val_size", "left"), [(100, 5_000, []), (999, 5_000, [5]), (100, 0, [])])
def test_training_drops_the_last_incomplete_batch_and_evaluation_does_not(
    data_dir: Path, batch_size: int, val_size: int, left: list[int]
) -> None:
    data = set_up(data_dir, "fit", batch_size, val_size)
    train, val = ([len(labels) for _, labels in loader] for loader in (data.train_dataloader(), data.val_dataloader()))
    assert train == [batch_size] * len(data.train_dataloader()) == [batch_size] * ((60_000 - val_size) // batch_size)
    assert val == [batch_size] * (val_size // batch_size) + left
    assert not hasattr(data, "test_set"), "training does not read it"


def test_training_and_validation_set_are_those_of_the_split(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=True)
    train, val = split(labels, 5_000, seed=0)
    data = set_up(data_dir, "fit")
    for subset, indices in [(data.train_set, train), (data.val_set, val)]:
        [(subset_pixels, subset_labels)] = DataLoader(subset, batch_size=len(indices), collate_fn=identity_collate)
        assert torch.equal(subset_pixels, pixels[indices])
        assert torch.equal(subset_labels, labels[indices])


def test_training_order_depends_on_the_seed_of_torch_and_the_epoch(data_dir: Path) -> None:
    orders = []
    for seed, epoch in [(1, 0), (1, 0), (1, 1), (2, 0)]:
        torch.manual_seed(seed)
        loader = set_up(data_dir, "fit").train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # as the Trainer does
        orders.append(labels_of(loader, 20))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[3])


def test_batches_of_several_processes_are_together_those_of_one(data_dir: Path) -> None:
    batches = []
    for processes in (1, 2):
        parts = []
        for rank in range(processes):
            torch.manual_seed(1)
            data = set_up(data_dir, "fit")
            data.trainer = cast("Any", SimpleNamespace(global_rank=rank, world_size=processes))
            loader = data.train_dataloader()
            assert len(loader) == 550
            parts.append(labels_of(loader, 20).view(20, -1))
        batches.append(torch.cat(parts, dim=1).sort(dim=1).values)
    assert batches[0].shape == (20, 100)
    assert torch.equal(*batches)


def test_loading_a_batch_draws_none_of_the_random_numbers_of_an_epoch(data_dir: Path) -> None:
    loader = set_up(data_dir, "fit").train_dataloader()
    before = torch.get_rng_state()
    next(iter(loader))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit": "stretch"}, "fit must be crop or pad, got stretch"),
        ({"split_seed": -1}, "split_seed must be at least 0, got -1"),
        ({"dataset": "CIFAR"}, "dataset must be MNIST, FashionMNIST, KMNIST, CIFAR10 or a folder of images, got CIFAR"),
        ({"rotation": -1}, "rotation must be at least 0 and less than 180, got -1"),
        ({"crop": 28}, "crop must be at least 0 and less than 28, got 28"),
        ({"scaling": 1}, "scaling must be at least 0 and less than 1, got 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MNISTDataModule(**settings)


def test_a_folder_of_validation_images_is_the_validation_set(tmp_path: Path) -> None:
    for part, number in (("train", 20), ("val", 4), ("test", 3)):
        for level, name in enumerate(("cat", "dog")):
            (folder := tmp_path / "photos" / part / name).mkdir(parents=True)
            for index in range(number):
                image = np.full((8, 8), len(part) * 40 + index + 30 * level, np.uint8)
                Image.fromarray(image).save(folder / f"{index}.png")
    settings: dict[str, Any] = {"dataset": str(tmp_path / "photos"), "image_size": 8, "data_dir": str(tmp_path)}
    data = MNISTDataModule(batch_size=4, **settings)
    data.setup("fit")
    assert (data.val_size, len(data.train_set), len(data.val_set)) == (8, 40, 8)
    pixels = torch.cat([pixels for pixels, _ in data.val_dataloader()])
    assert sorted(pixels.amax((1, 2, 3)).tolist()) == [*range(120, 124), *range(150, 154)]
    assert MNISTDataModule(val_size=8, **settings).val_size == 8, "as a resumed run has it"
    for refused in ({"val_size": 0}, {"val_size": 5}, {"split_seed": 1}):
        with pytest.raises(ValueError, match=r"^val_size .* and split_seed .* has 8 validation images of its own: "):
            MNISTDataModule(**settings | refused)


@pytest.mark.parametrize("training", [True, False])
def test_batches_of_the_training_only_are_augmented(data_dir: Path, *, training: bool) -> None:
    data = MNISTDataModule(rotation=10, data_dir=str(data_dir))
    data.trainer = cast("Any", SimpleNamespace(training=training, current_epoch=0))
    pixels, labels = (tensor[:100] for tensor in MNIST.read(data_dir, train=False))
    found, same = data.on_after_batch_transfer((pixels, labels), 0)
    assert ((found.float() - pixels.float()).abs().mean() > 1) == training
    assert torch.equal(same, labels)
