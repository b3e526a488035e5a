"""Which images, in which order: pure functions of seeds, the same on every machine.

Orders are those of the raw numbers of a bit generator: NumPy keeps these the same in all versions, which it does not
promise of `Generator.permutation` (NEP 19).
"""

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
from numpy.random import PCG64
from torch import Tensor
from torch.utils.data import DistributedSampler

__all__ = ["EpochShuffle", "InOrder", "mixed", "split"]


def split(labels: Tensor, val_size: int, seed: int) -> tuple[list[int], list[int]]:
    """Divide the indices of `labels` (N,) into a training and a validation part with the same class shares.

    Takes evenly spaced places from an order by label, random within a label: every class gives its share, rounded up or
    down.
    """
    by_label = np.lexsort((PCG64(seed).random_raw(len(labels)), labels.numpy()))
    places = np.arange(val_size) * len(labels) // max(val_size, 1)
    validation = np.sort(by_label[places])
    return np.setdiff1d(by_label, validation).tolist(), validation.tolist()


def mixed(*numbers: int) -> int:
    """Return a seed that is a function of all the numbers, below 2**32: torch's generator on the CPU takes no more.

    >>> mixed(777, 0) == mixed(777, 1)
    False
    """
    return int(PCG64(numbers).random_raw()) >> 32


class InOrder(DistributedSampler[int]):
    """All places of a set in their order, divided among processes: each takes every n-th, from its rank on.

    Nothing is repeated to make the parts equal, as torch's own DistributedSampler does. Being one, it is left alone by
    Lightning, which would replace any other.

    Args:
        size: how many places there are.
        rank: which process this is, counted from 0.
        processes: how many there are.
    """

    def __init__(self, size: int, rank: int = 0, processes: int = 1) -> None:
        super().__init__(range(size), num_replicas=processes, rank=rank)  # type: ignore[arg-type]  # has a length
        self.size = size

    def order(self) -> Sequence[int]:
        """Return the order in which all processes together take the places."""
        return range(self.size)

    def __iter__(self) -> Iterator[int]:
        yield from self.order()[self.rank :: self.num_replicas]

    def __len__(self) -> int:
        return len(range(self.rank, self.size, self.num_replicas))


class EpochShuffle(InOrder):
    """A new order every epoch, a pure function of the seed and the epoch.

    The Trainer calls `set_epoch` before each epoch, so that an epoch's order does not depend on how the run got there.
    What is left over after the last whole batch is left out.

    Args:
        size: how many places there are.
        seed: of the orders.
        batch_size: how many are taken at once by all processes together.
        rank: which process this is, counted from 0.
        processes: how many there are.
    """

    def __init__(self, size: int, seed: int, batch_size: int = 1, rank: int = 0, processes: int = 1) -> None:
        super().__init__(size - size % batch_size, rank, processes)
        self.places, self.seed = size, seed

    def order(self) -> Sequence[int]:
        """Return the epoch's order; a batch of all processes together is a stretch of it."""
        places = np.argsort(PCG64((self.seed, self.epoch)).random_raw(self.places), kind="stable")
        return cast("list[int]", places[: self.size].tolist())
