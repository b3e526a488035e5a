"""The loss and accuracy of a training epoch, which survive its interruption, in one process or several."""

from math import nan
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.utilities.distributed import gather_all_tensors

from mnist_lit.model import DIGITS

__all__ = ["EpochCounts"]


class EpochCounts(nn.Module):
    """Counts over all images of an epoch so far, never a mean of batch means: the last batch may be smaller.

    They are kept in checkpoints: an epoch that is resumed in its middle ends with the metrics of all its steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy=nan)
        self.accuracy = MulticlassAccuracy(DIGITS, average="micro", validate_args=False)
        for metric in (self.loss, self.accuracy):
            metric.persistent(mode=True)

    def reset(self) -> None:
        """Count from zero."""
        self.loss.reset()
        self.accuracy.reset()

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: its mean loss (), logits (B, 10) and labels (B,)."""
        self.loss.update(loss, len(labels))
        self.accuracy.update(logits, labels)

    def compute(self) -> dict[str, Tensor]:
        """Return `train/loss` and `train/accuracy` of all processes; logged in each step, they outlast Adam."""
        return {"train/loss": self.loss.compute(), "train/accuracy": self.accuracy.compute()}

    def gather(self, state: dict[str, Any], prefix: str) -> None:
        """Put into a checkpoint's weights, under `prefix`, what each process has counted, (processes,)."""
        for name in [name for name in state if name.startswith(prefix)]:
            counts = gather_all_tensors(state[name]) if distributed.is_initialized() else [state[name]]
            state[name] = torch.stack(counts)

    def share(self, state: dict[str, Any], prefix: str, rank: int) -> None:
        """Take this process's count from a checkpoint's weights; of other numbers of processes, the first takes all."""
        processes = distributed.get_world_size() if distributed.is_initialized() else 1
        for name in [name for name in state if name.startswith(prefix)]:
            # Older checkpoints of averaged weights have the first process's alone.
            counts = state[name] if state[name].ndim else state[name][None]
            total = counts.sum().expand(processes) * (torch.arange(processes) == 0)
            state[name] = (counts if len(counts) == processes else total)[rank]
