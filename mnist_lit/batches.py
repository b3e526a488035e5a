"""Batches: from memory in one go, and where an epoch goes on with them."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mnist_lit.model import Batch

__all__ = ["Digits", "ResumableLoader", "as_fetched"]


class Digits(Dataset[Batch]):
    """Images and labels in memory, fetched a batch at a time.

    Args:
        pixels: uint8 (N, 1, 28, 28), 0-255.
        labels: int64 (N,), 0-9.
    """

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        """Return one image (1, 28, 28) and its label ()."""
        return self.pixels[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return a whole batch, (B, 1, 28, 28) and (B,): one gather instead of B look-ups and a stack."""
        chosen = torch.tensor(indices)
        return self.pixels.index_select(0, chosen), self.labels.index_select(0, chosen)


def as_fetched(batch: Any) -> Any:
    """Pass on what `Digits.__getitems__` has already collated."""
    return batch


class ResumableLoader(DataLoader[Batch]):
    """Goes on with an epoch after the batches that had been given out when its state was saved.

    Lightning keeps the state of such loaders in its checkpoints.

    Args:
        limit: how many batches the Trainer takes in an epoch, as its `limit_train_batches`: a number or a share.
        settings: DataLoader's.
    """

    def __init__(self, *, limit: float = 1.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.limit = limit
        self.given = self.first = 0

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the current epoch have been given out; 0 after the last one."""
        batches = int(len(self) * self.limit) if isinstance(self.limit, float) else min(self.limit, len(self))
        return {"given": self.given % batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next epoch begin after the batches of a saved state."""
        self.first = state["given"]

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # any iterator will do
        self.given, self.first = self.first, 0
        for number, batch in enumerate(super().__iter__()):
            if number >= self.given:
                self.given = number + 1
                yield batch
