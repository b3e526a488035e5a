"""Which images, in which order: pure functions of seeds, the same on every machine.

Orders are those of the raw numbers of a bit generator: NumPy keeps these the same in all versions, which it does not
promise of `Generator.permutation` (NEP 19).
"""

from collections.abc import Iterator

import numpy as np
from numpy.random import PCG64
from torch import Tensor
from torch.utils.data import Sampler

__all__ = ["EpochShuffle", "split"]


def split(labels: Tensor, val_size: int, seed: int) -> tuple[list[int], list[int]]:
    """Divide the indices of `labels` (N,) into a training and a validation part with the same class shares.

    Takes evenly spaced places from an order by label, random within a label: every class gives its share, rounded up or
    down.
    """
    by_label = np.lexsort((PCG64(seed).random_raw(len(labels)), labels.numpy()))
    places = np.arange(val_size) * len(labels) // max(val_size, 1)
    validation = np.sort(by_label[places])
    return np.setdiff1d(by_label, validation).tolist(), validation.tolist()


class EpochShuffle(Sampler[int]):
    """A new order every epoch, a pure function of the seed and the epoch.

    The Trainer calls `set_epoch` before each epoch, so that an epoch's order does not depend on how the run got there.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, that the next iteration is for."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        yield from np.argsort(PCG64((self.seed, self.epoch)).random_raw(self.size), kind="stable").tolist()

    def __len__(self) -> int:
        return self.size
