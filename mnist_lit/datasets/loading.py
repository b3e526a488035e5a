"""Loading batches: a data set in memory, read a batch at a time, and a loader that resumes within an epoch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

__all__ = ["Batch", "InMemoryDataset", "ResumableDataLoader", "identity_collate"]

MAX_GPU_BYTES = 1 << 30
"""Of all images: the rest of a GPU's memory is for the training."""
Batch = tuple[Tensor, Tensor]
"""Pixels uint8 (B, C, H, W), 0-255, and labels int64 (B,)."""


class InMemoryDataset(Dataset[Batch]):
    """Images and labels in memory.

    Args:
        pixels: uint8 (N, C, H, W), 0-255.
        labels: int64 (N,), on the same device.
    """

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "InMemoryDataset":
        """Return the images in a GPU's memory, so that no batch is copied there, unless they are too many for that."""
        if device.type != "cuda" or self.pixels.nbytes > MAX_GPU_BYTES:
            return self
        return InMemoryDataset(self.pixels.to(device), self.labels.to(device))

    def __getitem__(self, index: int) -> Batch:
        """Return an image (C, H, W) and its label ()."""
        return self.pixels[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return a batch, (B, C, H, W) and (B,), by one gather instead of B look-ups and a stack."""
        chosen = torch.tensor(indices, device=self.pixels.device)
        return self.pixels.index_select(0, chosen), self.labels.index_select(0, chosen)


def identity_collate(batch: Any) -> Any:
    """Return the batch as it is: `InMemoryDataset.__getitems__` has collated it."""
    return batch


class ResumableDataLoader(DataLoader[Batch]):
    """A DataLoader that resumes an epoch after the batches that it had yielded when its state was saved.

    Lightning saves the state of such loaders in its checkpoints.

    Args:
        limit: number (int) or fraction (float) of an epoch's batches that are used: the Trainer's
            `limit_train_batches`.
        settings: keyword arguments passed to `DataLoader`.
    """

    def __init__(self, *, limit: float = 1.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.limit = limit
        self.given = self.first = 0

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the current epoch have been yielded; 0 after the last one."""
        batches = int(len(self) * self.limit) if isinstance(self.limit, float) else min(self.limit, len(self))
        return {"given": self.given % batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip the batches of a saved state in the next epoch."""
        self.first = state["given"]

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # any iterator will do
        self.given, self.first = self.first, 0
        for number, batch in enumerate(super().__iter__()):
            if number >= self.given:
                self.given = number + 1
                yield batch
