"""Splits and orders are pure functions of their seeds."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MNIST
from torch import Tensor

from mnist_lit.datasets.sampling import ShardedSampler, ShuffledSampler, derive_seed, split


@pytest.fixture(scope="module")
def labels(data_dir: Path) -> Tensor:
    return MNIST.read(data_dir, train=True)[1]


@pytest.mark.parametrize("val_size", [0, 1, 9, 5_000, 12_345, 59_999])
def test_the_parts_are_disjoint_complete_and_of_the_size_asked_for(labels: Tensor, val_size: int) -> None:
    train, val = split(labels, val_size, seed=3)
    assert len(val) == val_size
    assert sorted(train + val) == list(range(60_000))


@pytest.mark.parametrize("val_size", [100, 5_000, 33_333])
def test_every_class_has_its_share_to_within_one_image(labels: Tensor, val_size: int) -> None:
    _, val = split(labels, val_size, seed=3)
    counts = torch.bincount(labels[val], minlength=10)
    assert ((counts - torch.bincount(labels) * val_size / 60_000).abs() <= 1).all()


def test_the_default_split_is_the_same_on_every_machine(labels: Tensor) -> None:
    _, val = split(labels, 5_000, seed=0)
    assert (
        sha256(np.asarray(val, dtype="<i8").tobytes()).hexdigest()
        == "3d39b348911e8a5b7b45a3d92bf9e60bd53a23154546d432067600c0a36a4b77"
    )


def test_another_seed_holds_out_other_images(labels: Tensor) -> None:
    assert len(set(split(labels, 5_000, seed=0)[1]) & set(split(labels, 5_000, seed=1)[1])) < 1_000


def test_the_split_does_not_follow_the_training_seed(labels: Tensor) -> None:
    torch.manual_seed(1)
    first = split(labels, 100, seed=0)
    torch.manual_seed(2)
    assert split(labels, 100, seed=0) == first


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    walked, jumped = ShuffledSampler(1_000, seed=5), ShuffledSampler(1_000, seed=5)
    orders: list[list[int]] = []
    for epoch in range(3):
        walked.set_epoch(epoch)
        orders.append(list(walked))
    jumped.set_epoch(2)
    assert list(jumped) == orders[2]
    assert len({tuple(order) for order in [*orders, list(ShuffledSampler(1_000, seed=6))]}) == 4
    assert all(sorted(order) == list(range(1_000)) for order in orders)
    assert len(jumped) == 1_000


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_each_batch_of_one_order(processes: int) -> None:
    one = list(ShuffledSampler(100, seed=1, batch_size=12))
    assert len(one) == 96, "the last incomplete batch is left out"
    shares = [
        list(ShuffledSampler(100, seed=1, batch_size=12, rank=rank, processes=processes)) for rank in range(processes)
    ]
    for start in range(0, 96, 12):
        part = slice(start // processes, (start + 12) // processes)
        assert sorted(place for share in shares for place in share[part]) == sorted(one[start : start + 12])


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_evaluate_every_place_once(processes: int) -> None:
    shares = [ShardedSampler(10, rank, processes) for rank in range(processes)]
    assert sorted(place for share in shares for place in share) == list(range(10))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]


def test_seeds_of_different_numbers_differ_and_fit_32_bits() -> None:
    seeds = [derive_seed(seed, batch, rank, 1) for seed in range(10) for batch in range(10) for rank in range(10)]
    assert len(set(seeds)) == 1_000
    assert max(seeds) < 2**32
    assert derive_seed(777, 0, 0) == derive_seed(777, 0, 0) != derive_seed(777, 0, 0, 1)
