"""Splits and sampling orders are pure functions of their seeds."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.sampling import ShardedSampler, ShuffledSampler, derive_seed, split


@pytest.fixture(scope="module")
def labels(data_dir: Path) -> Tensor:
    return MNIST.read(data_dir, train=True)[1]


@pytest.mark.parametrize("val_size", [0, 1, 9, 5_000, 12_345, 59_999])
def test_split_is_a_partition_with_val_size_images(labels: Tensor, val_size: int) -> None:
    train, val = split(labels, val_size, seed=3)
    assert len(val) == val_size
    assert sorted(train + val) == list(range(60_000))


@pytest.mark.parametrize("val_size", [100, 5_000, 33_333])
def test_split_is_stratified(labels: Tensor, val_size: int) -> None:
    _, val = split(labels, val_size, seed=3)
    counts = torch.bincount(labels[val], minlength=10)
    assert ((counts - torch.bincount(labels) * val_size / 60_000).abs() <= 1).all()


def test_default_split_is_the_same_on_every_machine(labels: Tensor) -> None:
    _, val = split(labels, 5_000, seed=0)
    assert (
        sha256(np.asarray(val, dtype="<i8").tobytes()).hexdigest()
        == "3d39b348911e8a5b7b45a3d92bf9e60bd53a23154546d432067600c0a36a4b77"
    )


def test_split_depends_on_its_seed(labels: Tensor) -> None:
    assert len(set(split(labels, 5_000, seed=0)[1]) & set(split(labels, 5_000, seed=1)[1])) < 1_000


def test_split_is_independent_of_the_global_seed(labels: Tensor) -> None:
    torch.manual_seed(1)
    first = split(labels, 100, seed=0)
    torch.manual_seed(2)
    assert split(labels, 100, seed=0) == first


def test_order_depends_on_seed_and_epoch_only() -> None:
    sequential, resumed = ShuffledSampler(1_000, seed=5), ShuffledSampler(1_000, seed=5)
    orders: list[list[int]] = []
    for epoch in range(3):
        sequential.set_epoch(epoch)
        orders.append(list(sequential))
    resumed.set_epoch(2)
    assert list(resumed) == orders[2]
    assert len({tuple(order) for order in [*orders, list(ShuffledSampler(1_000, seed=6))]}) == 4
    assert all(sorted(order) == list(range(1_000)) for order in orders)
    assert len(resumed) == 1_000


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shards_of_a_shuffled_sampler_make_up_its_batches(processes: int) -> None:
    one = list(ShuffledSampler(100, seed=1, batch_size=12))
    assert len(one) == 96, "the last incomplete batch is dropped"
    shards = [
        list(ShuffledSampler(100, seed=1, batch_size=12, rank=rank, processes=processes)) for rank in range(processes)
    ]
    for start in range(0, 96, 12):
        batch = slice(start // processes, (start + 12) // processes)
        assert sorted(index for shard in shards for index in shard[batch]) == sorted(one[start : start + 12])


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shards_have_every_sample_once(processes: int) -> None:
    shards = [ShardedSampler(10, rank, processes) for rank in range(processes)]
    assert sorted(index for shard in shards for index in shard) == list(range(10))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]


def test_derived_seeds_differ_and_fit_in_32_bits() -> None:
    seeds = [derive_seed(seed, batch, rank, 1) for seed in range(10) for batch in range(10) for rank in range(10)]
    assert len(set(seeds)) == 1_000
    assert max(seeds) < 2**32
    assert derive_seed(777, 0, 0) == derive_seed(777, 0, 0) != derive_seed(777, 0, 0, 1)
