"""The LightningModule: the network, its loss, its optimizer and its metrics."""

from collections.abc import Sequence
from math import inf, isfinite
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics.classification import MulticlassAccuracy

from mnist_lit.datasets.sampling import Batch
from mnist_lit.model import CNN
from mnist_lit.muon import Muon
from mnist_lit.system.values import plain

__all__ = ["DigitClassifier"]

MAX_SCALED = 10
"""Largest value of pixels that were scaled to 0-1, or normalised; a batch of pixels 0-255 has larger ones."""


class DigitClassifier(LightningModule):
    """The network, trained with cross-entropy and Adam or another optimizer.

    A batch has pixels 0-255, (B, C, H, W), and labels (B,). The commands and callbacks rely on the logits that
    `validation_step` and `test_step` return, the logged losses and accuracies, `temperature` and `hparams`.

    Args:
        optimizer: `adam` (Kingma & Ba 2015, arXiv:1412.6980), `sgd` with Nesterov momentum, or `muon` (see `Muon`).
        learning_rate: learning rate of the optimizer; with a schedule, its peak.
        betas: decay rates of the moment estimates of Adam and Muon; for `sgd`, the first one is the momentum.
        weight_decay: weight decay; for `sgd` it is multiplied by the weights in the gradient, otherwise decoupled.
        schedule: how the learning rate changes: `constant`; `one_cycle`, which rises from `learning_rate` / 25 to
            `learning_rate` and falls to 0 along a cosine (Smith & Topin 2018, arXiv:1708.07120); or `triangular`, which
            does so linearly.
        label_smoothing: label smoothing factor of the training loss (Szegedy et al. 2016, arXiv:1512.00567).
        classes: number of classes, K.
        **network: keyword arguments passed to `CNN`.

    Raises:
        ValueError: if a setting is out of range.

    >>> DigitClassifier(channels=[8, 16]).hparams.learning_rate
    0.001
    """

    temperature: Tensor

    def __init__(
        self,
        *,
        optimizer: Literal["adam", "sgd", "muon"] = "adam",  # noqa: ARG002  # read from `self.hparams`, as `schedule`
        learning_rate: float = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        schedule: Literal["constant", "one_cycle", "triangular"] = "constant",  # noqa: ARG002
        label_smoothing: float = 0.0,
        classes: int = 10,
        **network: Any,
    ) -> None:
        if not 0 < learning_rate < inf:
            raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and less than 1, got {label_smoothing}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers, at least 0 and less than 1, got {list(betas)}")
        if not 0 <= weight_decay < inf:
            raise ValueError(f"weight_decay must be at least 0 and finite, got {weight_decay}")
        super().__init__()
        self.save_hyperparameters()
        self.hparams.update(plain(self.hparams))  # NumPy's numbers and the like: any program can read a checkpoint
        network = plain(network)
        self.network = CNN(classes=classes, **network)
        self.pixels_checked = False
        # Fitted on the validation images by the callback `Calibration`; it divides the logits of predictions.
        self.register_buffer("temperature", torch.ones(()))
        self.train_accuracy, self.val_accuracy, self.test_accuracy = (
            MulticlassAccuracy(classes, average="micro", validate_args=False) for _ in range(3)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255, (N, C, H, W), to logits (N, K)."""
        if pixels.is_floating_point() and not self.pixels_checked:
            self.pixels_checked = True  # once, since a GPU waits for it
            if pixels.amin() < 0 or 0 < pixels.amax() <= MAX_SCALED:
                rank_zero_warn("DigitClassifier expects pixels 0-255, these were scaled: leave out ToTensor, Normalize")
        logits: Tensor = self.network(pixels)
        return logits

    def training_step(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of a batch, and log the loss and the accuracy of the epoch."""
        loss, _ = self._step(batch, "train", self.hparams["label_smoothing"])
        return loss

    def validation_step(self, batch: Batch) -> Tensor:
        """Log the loss and the accuracy, and return the logits (B, K) for the callbacks."""
        _, logits = self._step(batch, "val")
        return logits

    def test_step(self, batch: Batch) -> Tensor:
        """Log the loss and the accuracy, and return the logits (B, K) for the callbacks."""
        _, logits = self._step(batch, "test")
        return logits

    def _step(self, batch: Batch, stage: str, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        pixels, labels = batch
        logits = self(pixels).float()  # (B, K); they may be in half precision
        loss = cross_entropy(logits, labels, label_smoothing=label_smoothing)
        accuracy = getattr(self, f"{stage}_accuracy")
        accuracy.update(logits, labels)  # calling the metric would also compute the accuracy of the batch
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=True)
        self.log(f"{stage}/accuracy", accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss, logits

    def predict_step(self, batch: Batch | Tensor) -> Tensor:
        """Return probabilities (B, K): the softmax of the logits divided by the temperature, 1 until it is fitted."""
        pixels = batch[0] if isinstance(batch, list | tuple) else batch  # with labels or without
        logits: Tensor = self(pixels).float()
        return (logits / self.temperature).softmax(dim=1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer of all parameters and, with a schedule, the learning rate's scheduler."""
        name, rate, betas = (self.hparams[key] for key in ("optimizer", "learning_rate", "betas"))
        settings = {"lr": rate, "weight_decay": self.hparams["weight_decay"]}
        # A fused optimizer updates all parameters at once. In mixed precision, Lightning refuses to clip with it.
        fused = None if self.trainer.precision.endswith("-mixed") else True
        optimizer: Optimizer
        if name == "adam":
            optimizer = Adam(self.parameters(), betas=betas, decoupled_weight_decay=True, fused=fused, **settings)
        elif name == "sgd":
            optimizer = SGD(self.parameters(), momentum=betas[0], nesterov=betas[0] > 0, fused=fused, **settings)
        elif name == "muon":
            optimizer = Muon(self.parameters(), betas=betas, **settings)
        else:
            raise ValueError(f"optimizer must be adam, sgd or muon, got {name}")
        if (schedule := self.hparams["schedule"]) == "constant":
            return optimizer
        if not isfinite(steps := self.trainer.estimated_stepping_batches):
            raise ValueError(f"schedule {schedule} needs an end: give the Trainer max_epochs or max_steps")
        shape: Literal["cos", "linear"] = "linear" if schedule == "triangular" else "cos"
        scheduler = OneCycleLR(optimizer, rate, total_steps=int(steps), anneal_strategy=shape, cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
