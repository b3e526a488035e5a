"""Splitting and sampling: pure functions of seeds, the same on every machine.

Permutations sort the raw numbers of a bit generator, which are the same in all versions of NumPy; those of
`Generator.permutation` may change (NEP 19).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.random import PCG64
from torch import Tensor
from torch.utils.data import DistributedSampler

__all__ = ["ShardedSampler", "ShuffledSampler", "changed_split", "derive_seed", "split"]


def split(labels: Tensor, val_size: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of a stratified training and validation set.

    The validation set has evenly spaced indices of a permutation that is sorted by label: every class gives its
    fraction, rounded up or down.

    Args:
        labels: (N,).
        val_size: number of validation images.
        seed: of the permutation.
    """
    by_label = np.lexsort((PCG64(seed).random_raw(len(labels)), labels.numpy()))
    places = np.arange(val_size) * len(labels) // max(val_size, 1)
    validation = np.sort(by_label[places])
    return np.setdiff1d(by_label, validation).tolist(), validation.tolist()


def changed_split(trained: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the settings by which a validation set has images that were trained on; none if it has no such images.

    Args:
        trained: data settings of the training: `val_size` and `split_seed`.
        given: those of the validation, on the same data set.
    """
    same_seed = given["split_seed"] == trained["split_seed"]
    if same_seed and given["val_size"] and trained["val_size"] % given["val_size"] == 0:
        return []  # the smaller validation set is a subset of the larger one, see `split`
    return [name for name in ("val_size", "split_seed") if given[name] != trained[name]]


def derive_seed(*numbers: int) -> int:
    """Return a seed that depends on all the numbers, below 2**32 as torch's generator on the CPU needs it.

    >>> derive_seed(777, 0) == derive_seed(777, 1)
    False
    """
    return int(PCG64(numbers).random_raw()) >> 32


class ShardedSampler(DistributedSampler[int]):
    """Samples a data set in its order; each process has every `processes`-th sample, from its rank on.

    Nothing is repeated to make the shards equal, as torch's own DistributedSampler does. It is a subclass, since
    Lightning would replace any other sampler.

    Args:
        size: number of samples.
        rank: of this process.
        processes: number of processes.
    """

    def __init__(self, size: int, rank: int = 0, processes: int = 1) -> None:
        super().__init__(range(size), num_replicas=processes, rank=rank)  # type: ignore[arg-type]  # has a length
        self.size = size

    def order(self) -> Sequence[int]:
        """Return the indices in the order of all processes together."""
        return range(self.size)

    def __iter__(self) -> Iterator[int]:
        yield from self.order()[self.rank :: self.num_replicas]

    def __len__(self) -> int:
        return len(range(self.rank, self.size, self.num_replicas))


class ShuffledSampler(ShardedSampler):
    """Shuffles anew in every epoch, as a pure function of the seed and the epoch, and drops the last incomplete batch.

    The Trainer calls `set_epoch` before each epoch, so that the order does not depend on where training was resumed.

    Args:
        size: number of samples.
        seed: of the permutations.
        batch_size: samples of a batch, of all processes together.
        rank: of this process.
        processes: number of processes.
    """

    def __init__(self, size: int, seed: int, batch_size: int = 1, rank: int = 0, processes: int = 1) -> None:
        super().__init__(size - size % batch_size, rank, processes)
        self.total, self.seed = size, seed

    def order(self) -> Sequence[int]:
        """Return the epoch's permutation; a batch of all processes together is a slice of it."""
        places = np.argsort(PCG64((self.seed, self.epoch)).random_raw(self.total), kind="stable")
        return cast("list[int]", places[: self.size].tolist())
