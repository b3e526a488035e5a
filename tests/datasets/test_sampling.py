"""Images in memory, and splits that are pure functions of their seeds."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.sampling import InMemoryDataset, changed_split, identity_collate, split


@pytest.fixture(scope="module")
def labels(data_dir: Path) -> Tensor:
    return MNIST.read(data_dir, train=True)[1]


@pytest.mark.parametrize("val_size", [0, 1, 9, 100, 5_000, 12_345, 33_333, 59_999])
def test_split_is_a_stratified_partition_with_val_size_images(labels: Tensor, val_size: int) -> None:
    train, val = split(labels, val_size, seed=3)
    assert len(val) == val_size
    assert sorted(train + val) == list(range(60_000))
    counts = torch.bincount(labels[val], minlength=10)
    assert ((counts - torch.bincount(labels) * val_size / 60_000).abs() <= 1).all()


def test_the_first_validation_images_are_of_every_class() -> None:
    """Even where the images are sorted by class, as those of folders are: `limit_val_batches` takes the first ones."""
    labels = torch.arange(10).repeat_interleave(100)
    _, val = split(labels, 200, seed=0)
    assert {*labels[val[:60]].tolist()} == {*range(10)}


def test_default_split_is_the_same_on_every_machine_and_others_depend_on_their_seed_alone(labels: Tensor) -> None:
    torch.manual_seed(1)
    _, val = split(labels, 5_000, seed=0)
    assert (
        sha256(np.sort(np.asarray(val, dtype="<i8")).tobytes()).hexdigest()
        == "3d39b348911e8a5b7b45a3d92bf9e60bd53a23154546d432067600c0a36a4b77"
    )
    torch.manual_seed(2)
    assert split(labels, 5_000, seed=0)[1] == val
    assert len(set(val) & set(split(labels, 5_000, seed=1)[1])) < 1_000


def test_a_batch_has_the_images_of_its_indices(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=False)
    images = InMemoryDataset(pixels, labels)
    assert len(images) == 10_000
    indices = [7, 3, 9_999, 3]
    batch, some = identity_collate(images.__getitems__(indices))
    one, number = images[3]
    assert torch.equal(batch, pixels[indices])
    assert torch.equal(some, labels[indices])
    assert torch.equal(batch[1], one)
    assert (some[1], some.dtype, batch.dtype) == (number, torch.int64, torch.uint8)
    assert images.__getitems__([])[0].shape == (0, 1, 28, 28)


@pytest.mark.parametrize(
    ("val_size", "split_seed", "changed"),
    [
        (5_000, 0, []),
        (1_000, 0, []),
        (10_000, 0, ["val_size"]),
        (3_000, 0, ["val_size"]),
        (5_000, 1, ["split_seed"]),
        (1_000, 1, ["val_size", "split_seed"]),
    ],
)
def test_a_changed_split_may_validate_on_training_images_unless_it_is_a_subset(
    labels: Tensor, val_size: int, split_seed: int, changed: list[str]
) -> None:
    trained, given = ({"val_size": 5_000, "split_seed": 0}, {"val_size": val_size, "split_seed": split_seed})
    assert changed_split(trained, given) == changed
    (_, before), (_, after) = (split(labels, one["val_size"], one["split_seed"]) for one in (trained, given))
    assert (set(after) <= set(before)) == (not changed)
