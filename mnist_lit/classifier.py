"""The LightningModule: the network, its loss, its optimizer and its metrics."""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, distributed
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.utilities.distributed import gather_all_tensors

from mnist_lit.model import CNN, DIGITS, Batch

__all__ = ["DigitClassifier"]

COUNTED = ("train_loss", "train_accuracy")


class DigitClassifier(LightningModule):
    """The CNN, trained with cross-entropy and Adam.

    Args:
        channels: filters of each convolution block (see `CNN`).
        learning_rate: Adam's step size (Kingma & Ba 2015, arXiv:1412.6980).

    Raises:
        ValueError: if a setting is out of range.

    >>> DigitClassifier(channels=[8, 16]).hparams.learning_rate
    0.001
    """

    def __init__(self, channels: Sequence[int] = (32, 64), learning_rate: float = 0.001) -> None:
        if not 0 < learning_rate < inf:
            raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
        channels = list(channels)  # a tuple would not survive a YAML file
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.network = CNN(channels)

        # Counted over the whole epoch, never a mean of batch means: the last batch may be smaller.
        # Persistent: an epoch that is resumed in its middle ends with the metrics of all its steps.
        self.train_loss = MeanMetric()
        self.train_loss.persistent(mode=True)
        self.train_accuracy = MulticlassAccuracy(DIGITS, average="micro", validate_args=False)
        self.train_accuracy.persistent(mode=True)
        self.loss = MeanMetric()
        self.confusion = MulticlassConfusionMatrix(DIGITS, validate_args=False)
        """Of the latest evaluation: how many images of digit i were read as digit j, int64 (10, 10)."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **settings: Any) -> Self:  # type: ignore[override]
        """Return the classifier in a checkpoint; see Lightning for the settings.

        It is opened as weights and plain values whatever the environment says: no code in it is run.
        """
        loaded: Self = super().load_from_checkpoint(checkpoint_path, **settings | {"weights_only": True})
        return loaded

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255, (N, 1, 28, 28), to logits (N, 10)."""
        logits: Tensor = self.network(pixels)
        return logits

    def on_train_epoch_start(self) -> None:
        """Count from zero. Within an epoch that is resumed, Lightning does not call it."""
        self.train_loss.reset()
        self.train_accuracy.reset()

    def training_step(self, batch: Batch) -> Tensor:
        """Return the batch's mean cross-entropy, with what the bar and the curves show of it."""
        pixels, labels = batch
        logits = self(pixels)
        loss = cross_entropy(logits, labels)
        self.train_loss.update(loss.detach(), len(labels))
        self.train_accuracy.update(logits, labels)
        self.log("loss", loss, prog_bar=True, logger=False)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, logger=False)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True, logger=False)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's loss and accuracy now, not after this hook as Lightning would.

        A checkpoint of the epoch's end is saved in between, and the curves of a resumed run must not miss a point.
        """
        shown = self.trainer.callback_metrics
        names = [name for name in ("train/loss", "train/accuracy") if name in shown]
        for logger in self.loggers:
            logger.log_metrics({name: float(shown[name]) for name in names}, step=self.global_step - 1)

    def on_validation_epoch_start(self) -> None:
        """Count from zero."""
        self.loss.reset()
        self.confusion.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch) -> None:
        """Count what is read as what."""
        pixels, labels = batch
        logits = self(pixels)
        self.loss.update(cross_entropy(logits, labels), len(labels))
        self.confusion.update(logits, labels)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log `val/loss` and `val/accuracy`, which selects the best checkpoint."""
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/loss` and `test/accuracy`."""
        self._log_evaluation("test")

    def _log_evaluation(self, stage: str) -> None:
        counts = self.confusion.compute()  # of all processes; each logs the same, of which a mean might differ
        accuracy = counts.diagonal().sum() / counts.sum()
        self.log(f"{stage}/loss", self.loss.compute(), sync_dist=True, reduce_fx="max")
        self.log(f"{stage}/accuracy", accuracy, prog_bar=True, sync_dist=True, reduce_fx="max")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what each process has counted in the epoch so far, (processes,)."""
        for name, count in checkpoint["state_dict"].items():
            if name.startswith(COUNTED):
                counts = gather_all_tensors(count) if distributed.is_initialized() else [count]
                checkpoint["state_dict"][name] = torch.stack(counts)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let each process go on with its own count or, where there were not as many, the first one with the sum."""
        processes = distributed.get_world_size() if distributed.is_initialized() else 1
        for name, counts in checkpoint["state_dict"].items():
            if name.startswith(COUNTED):
                total = counts.sum().expand(processes) * (torch.arange(processes) == 0)
                checkpoint["state_dict"][name] = (counts if len(counts) == processes else total)[self.global_rank]

    def predict_step(self, batch: Batch) -> Tensor:
        """Return probabilities (B, 10)."""
        pixels, _ = batch
        probabilities: Tensor = self(pixels).softmax(dim=1)
        return probabilities

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over all parameters."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)
