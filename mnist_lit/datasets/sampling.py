"""Images in memory: read a batch at a time, and divided into a training and a validation set.

Permutations sort the raw numbers of a bit generator, which are the same in all versions of NumPy; those of
`Generator.permutation` may change (NEP 19).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.random import PCG64
from torch import Tensor
from torch.utils.data import TensorDataset

__all__ = ["Batch", "InMemoryDataset", "changed_split", "derive_seed", "identity_collate", "split"]

Batch = tuple[Tensor, ...]
"""Pixels uint8 (B, C, H, W), 0-255, and labels int64 (B,)."""


class InMemoryDataset(TensorDataset):
    """Pixels, uint8 (N, C, H, W), 0-255, and labels, int64 (N,), in memory."""

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return a batch, (B, C, H, W) and (B,), by one gather instead of B look-ups and a stack."""
        chosen = torch.tensor(indices, dtype=torch.int64)
        return tuple(tensor.index_select(0, chosen) for tensor in self.tensors)


def identity_collate(batch: Any) -> Any:
    """Return the batch as it is: `InMemoryDataset.__getitems__` has collated it."""
    return batch


def split(labels: Tensor, val_size: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of a stratified training and validation set.

    The validation set has evenly spaced indices of a permutation that is sorted by label: every class gives its
    fraction, rounded up or down. It is shuffled, so that its first batches have images of every class.

    Args:
        labels: labels of all images, (N,).
        val_size: number of validation images.
        seed: seed of the permutation.
    """
    numbers = PCG64(seed).random_raw(len(labels))
    by_label = np.lexsort((numbers, labels.numpy()))
    validation = by_label[np.arange(val_size) * len(labels) // max(val_size, 1)]
    return np.setdiff1d(by_label, validation).tolist(), validation[numbers[validation].argsort()].tolist()


def changed_split(trained: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the settings whose change may put training images into the validation set.

    Args:
        trained: data settings of the training, with `val_size` and `split_seed`.
        given: data settings of the validation, on the same data set.
    """
    same_seed = given["split_seed"] == trained["split_seed"]
    if same_seed and given["val_size"] and trained["val_size"] % given["val_size"] == 0:
        return []  # the smaller validation set is a subset of the larger one, see `split`
    return [name for name in ("val_size", "split_seed") if given[name] != trained[name]]


def derive_seed(*numbers: int) -> int:
    """Return a seed that depends on all the numbers, below 2**32.

    >>> derive_seed(777, 0) == derive_seed(777, 1)
    False
    """
    return int(PCG64(numbers).random_raw()) >> 32
