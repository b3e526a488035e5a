"""The LightningModule: the network, its loss, its optimizer and its metrics."""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix

from mnist_lit.calibration import calibrated_softmax
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.loading import Batch
from mnist_lit.metrics import EpochMetrics, Mean, TemperatureScaling
from mnist_lit.model import CNN
from mnist_lit.schedule import one_cycle

__all__ = ["DigitClassifier"]


class DigitClassifier(LightningModule):
    """The network, trained with cross-entropy and Adam.

    Args:
        learning_rate: of Adam (Kingma & Ba 2015, arXiv:1412.6980); with a schedule, its maximum.
        betas: decay rates of Adam's moment estimates.
        schedule: of the learning rate: constant, or one_cycle from a 25th up to it and down to 0 (Smith & Topin 2018,
            arXiv:1708.07120).
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
        learning_rate: float = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        schedule: Literal["constant", "one_cycle"] = "constant",
        label_smoothing: float = 0.0,
        classes: int = len(MNIST.classes),
        **network: Any,
    ) -> None:
        if not 0 < learning_rate < inf:
            raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and less than 1, got {label_smoothing}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers, at least 0 and less than 1, got {list(betas)}")
        betas = list(betas)  # in YAML, a tuple is not a plain value
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate, self.betas = learning_rate, (betas[0], betas[1])
        self.schedule, self.label_smoothing = schedule, label_smoothing
        self.network = CNN(classes=classes, **network)
        self.network_settings = ["classes", *network]

        self.counts = EpochMetrics()  # of training; named so in checkpoints
        self.loss = Mean()
        self.confusion = MulticlassConfusionMatrix(classes, validate_args=False)
        """Of the latest evaluation: how many images of class i were classified as j, int64 (K, K)."""
        self.temperature_scaling = TemperatureScaling()
        self.register_buffer("temperature", torch.ones(()))
        self.uncalibrated_error, self.calibration_error = (
            MulticlassCalibrationError(classes, norm="l1", validate_args=False) for _ in range(2)
        )
        """Expected calibration errors of the latest test."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **settings: Any) -> Self:  # type: ignore[override]
        """Return the classifier in a checkpoint; see Lightning for the settings.

        It is loaded with `weights_only=True`, whatever the environment says: no code in it is run.
        """
        loaded: Self = super().load_from_checkpoint(checkpoint_path, **settings | {"weights_only": True})
        return loaded

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255, (N, C, H, W), to logits (N, K)."""
        logits: Tensor = self.network(pixels)
        return logits

    def on_train_epoch_start(self) -> None:
        """Reset the training metrics. Lightning does not call this where an epoch is resumed within it."""
        self.counts.reset()

    def training_step(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of a batch, and update the training metrics."""
        pixels, labels = batch
        logits = self(pixels)
        loss = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        self.latest_loss = loss.detach()
        self.counts.update(self.latest_loss, logits, labels)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the training metrics of the epoch now, not after this hook as Lightning would.

        The checkpoint of the epoch is saved in between, and the curves of a resumed run must not miss a point. An epoch
        that a limit has ended early logs none: the run may be resumed within it.
        """
        self.log_dict(metrics := self.counts.compute(), logger=False, sync_dist=True, reduce_fx="max")
        for logger in self.loggers if self.trainer.is_last_batch else ():
            logger.log_metrics({name: float(value) for name, value in metrics.items()}, step=self.global_step - 1)

    def on_validation_epoch_start(self) -> None:
        """Reset all but the training metrics. Not at the end of the epoch: the confusion matrix is read after it."""
        for name, module in self.named_children():
            if isinstance(module, Metric | MetricCollection) and not name.startswith(("counts", "train")):
                module.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch) -> Tensor:
        """Update the metrics, and return the logits (B, K)."""
        logits, labels = self._evaluate(batch)
        self.temperature_scaling.update(logits, labels)
        return logits

    def test_step(self, batch: Batch) -> Tensor:
        """Update the metrics, with the calibration errors, and return the logits (B, K)."""
        logits, labels = self._evaluate(batch)
        self.uncalibrated_error.update(logits.softmax(dim=1), labels)
        self.calibration_error.update(calibrated_softmax(logits, self.temperature), labels)
        return logits

    def _evaluate(self, batch: Batch) -> Batch:
        pixels, labels = batch
        logits: Tensor = self(pixels).float()
        self.loss.update(cross_entropy(logits, labels), len(labels))
        self.confusion.update(logits, labels)
        return logits, labels

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, of which `val/accuracy` selects the best checkpoint, and fit the temperature."""
        temperature = self.temperature_scaling.compute()
        if temperature.isfinite() and not self.trainer.sanity_checking:
            self.temperature.copy_(temperature)
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics; the calibration errors go to the Trainer's `callback_metrics` only."""
        self._log_evaluation("test")
        errors = {"calibration_error_before": self.uncalibrated_error, "calibration_error": self.calibration_error}
        computed = {f"test/{name}": metric.compute() for name, metric in errors.items()}
        self.log_dict(computed, logger=False, sync_dist=True, reduce_fx="max")

    def _log_evaluation(self, stage: str) -> None:
        counts = self.confusion.compute()  # over all processes
        metrics = {"loss": self.loss.compute(), "accuracy": counts.diagonal().sum() / counts.sum()}
        for name, value in metrics.items():
            # All processes have the same value; their mean might differ from it by rounding.
            self.log(f"{stage}/{name}", value, prog_bar=name == "accuracy", sync_dist=True, reduce_fx="max")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the metrics of all processes, the precision, and the temperature: weight averaging would average it.

        The network's class and the names of its settings are saved for those who load it without Lightning.
        """
        kind = type(self.network)
        checkpoint["network"] = {"class": f"{kind.__module__}.{kind.__qualname__}", "settings": self.network_settings}
        checkpoint["precision"] = self.trainer.precision
        self.counts.gather(checkpoint, "counts.")
        checkpoint["state_dict"]["temperature"] = self.temperature.clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take this process's part of the metrics."""
        self.counts.scatter(checkpoint, "counts.", self.global_rank)

    def predict_step(self, batch: Batch) -> Tensor:
        """Return probabilities (B, K), calibrated if there was a validation.

        `predict --images` and exported files have the network and the temperature only, and compute the same.
        """
        pixels, _ = batch
        return calibrated_softmax(self(pixels).float(), self.temperature)  # float: logits may be in half precision

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam over all parameters, with the schedule of its learning rate, which changes each step."""
        # Fused: all parameters in one pass. In mixed precision, Lightning could not clip the gradients before it.
        optimizer = torch.optim.Adam(
            self.parameters(),
            lr=self.learning_rate,
            betas=self.betas,
            fused=None if self.trainer.precision.endswith("-mixed") else True,
        )
        if self.schedule == "constant":
            return optimizer
        cycle = one_cycle(optimizer, self.learning_rate, self.trainer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
