"""The LightningModule: the network, its loss, its optimizer and its metrics."""

from collections.abc import Mapping, Sequence
from inspect import signature
from math import inf, nan
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix

from mnist_lit.calibration import BestTemperature, calibrated
from mnist_lit.counts import EpochCounts
from mnist_lit.model import CNN, DIGITS, Batch
from mnist_lit.schedule import one_cycle

__all__ = ["NETWORK_SETTINGS", "DigitClassifier"]

NETWORK_SETTINGS = tuple(signature(CNN).parameters)
"""The settings that are passed on to the network."""
PAIR = 2


class DigitClassifier(LightningModule):
    """The CNN, trained with cross-entropy and Adam.

    Args:
        channels: filters of each convolution block (see `CNN`).
        convolutions: how many convolutions each block has; by default one.
        kernel_sizes: side of the filters in each block, in pixels; by default 3.
        padding: zeros around what comes into the convolutions of each block; by default as many as keep the side.
        pooling: side of the squares that each block ends with the maximum of, 1 for none; by default 2.
        batch_norm: whether batches are normalised after each convolution.
        dropout: share of the last features that training leaves out at random.
        learning_rate: Adam's step size (Kingma & Ba 2015, arXiv:1412.6980); the highest one of a schedule.
        betas: how much of the gradient's mean and of its square's Adam keeps from step to step.
        schedule: how the rate goes: constant, or in one cycle from a 25th up and down to nothing (Smith & Topin 2018,
            arXiv:1708.07120).
        label_smoothing: share of certainty that training gives to the other digits (Szegedy et al. 2016,
            arXiv:1512.00567).

    Raises:
        ValueError: if a setting is out of range.

    >>> DigitClassifier(channels=[8, 16]).hparams.learning_rate
    0.001
    """

    temperature: Tensor

    def __init__(
        self,
        channels: Sequence[int] = (32, 64),
        *,
        convolutions: Sequence[int] | None = None,
        kernel_sizes: Sequence[int] | None = None,
        padding: Sequence[int] | None = None,
        pooling: Sequence[int] | None = None,
        batch_norm: bool = False,
        dropout: float = 0.0,
        learning_rate: float = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        schedule: Literal["constant", "one_cycle"] = "constant",
        label_smoothing: float = 0.0,
    ) -> None:
        if not 0 < learning_rate < inf:
            raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and less than 1, got {label_smoothing}")
        if len(betas) != PAIR or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers, at least 0 and less than 1, got {list(betas)}")
        channels, betas = list(channels), list(betas)  # tuples would not survive a YAML file
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate, self.betas = learning_rate, (betas[0], betas[1])
        self.schedule, self.label_smoothing = schedule, label_smoothing
        self.network = CNN(
            channels,
            convolutions=convolutions,
            kernel_sizes=kernel_sizes,
            padding=padding,
            pooling=pooling,
            batch_norm=batch_norm,
            dropout=dropout,
        )

        self.counts = EpochCounts()
        self.loss = MeanMetric(nan_strategy=nan)  # by default it would leave out what is not a number
        self.confusion = MulticlassConfusionMatrix(DIGITS, validate_args=False)
        """Of the latest evaluation: how many images of digit i were read as digit j, int64 (10, 10)."""
        self.best_temperature = BestTemperature()
        self.register_buffer("temperature", torch.ones(()))
        self.raw_error, self.calibration_error = (
            MulticlassCalibrationError(DIGITS, norm="l1", validate_args=False) for _ in range(2)
        )
        """Of the latest test: how far probabilities are from how often they are right, before and after calibration."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **settings: Any) -> Self:  # type: ignore[override]
        """Return the classifier in a checkpoint; see Lightning for the settings.

        It is opened as weights and plain values whatever the environment says: no code in it is run.
        """
        loaded: Self = super().load_from_checkpoint(checkpoint_path, **settings | {"weights_only": True})
        return loaded

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take weights, also those of a time before there was a temperature."""
        return super().load_state_dict({"temperature": torch.ones(())} | dict(state_dict), *args, **kwargs)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255, (N, 1, 28, 28), to logits (N, 10)."""
        logits: Tensor = self.network(pixels)
        return logits

    def on_train_epoch_start(self) -> None:
        """Count from zero. Within an epoch that is resumed, Lightning does not call it."""
        self.counts.reset()

    def training_step(self, batch: Batch) -> Tensor:
        """Return the batch's mean cross-entropy, and count it."""
        pixels, labels = batch
        logits = self(pixels)
        loss = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        self.latest_loss = loss.detach()
        self.counts.update(self.latest_loss, logits, labels)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's loss and accuracy at once, not after this hook as Lightning would.

        A checkpoint of the epoch's end is saved in between, and the curves of a resumed run must not miss a point. They
        have none of an epoch that a limit has cut: the run may be resumed within it.
        """
        self.log_dict(metrics := self.counts.compute(), logger=False, sync_dist=True, reduce_fx="max")
        for logger in self.loggers if self.trainer.is_last_batch else ():
            logger.log_metrics({name: float(value) for name, value in metrics.items()}, step=self.global_step - 1)

    def on_validation_epoch_start(self) -> None:
        """Count from zero."""
        for metric in (self.loss, self.confusion, self.best_temperature, self.raw_error, self.calibration_error):
            metric.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch) -> Tensor:
        """Count what is read as what, and return the logits (B, 10)."""
        logits, labels = self._evaluate(batch)
        self.best_temperature.update(logits, labels)
        return logits

    def test_step(self, batch: Batch) -> Tensor:
        """Count what is read as what, and how surely, and return the logits (B, 10)."""
        logits, labels = self._evaluate(batch)
        self.raw_error.update(logits.softmax(dim=1), labels)
        self.calibration_error.update(calibrated(logits, self.temperature), labels)
        return logits

    def _evaluate(self, batch: Batch) -> Batch:
        pixels, labels = batch
        logits: Tensor = self(pixels).float()
        self.loss.update(cross_entropy(logits, labels), len(labels))
        self.confusion.update(logits, labels)
        return logits, labels

    def on_validation_epoch_end(self) -> None:
        """Log `val/loss` and `val/accuracy`, which selects the best checkpoint, and find its temperature."""
        temperature = self.best_temperature.compute()
        if temperature.isfinite() and not self.trainer.sanity_checking:
            self.temperature.copy_(temperature)
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/loss` and `test/accuracy`; the calibration errors are for who asks the Trainer."""
        self._log_evaluation("test")
        errors = {"calibration_error_before": self.raw_error, "calibration_error": self.calibration_error}
        computed = {f"test/{name}": metric.compute() for name, metric in errors.items()}
        self.log_dict(computed, logger=False, sync_dist=True, reduce_fx="max")

    def _log_evaluation(self, stage: str) -> None:
        counts = self.confusion.compute()  # of all processes; each logs the same, of which a mean might differ
        accuracy = counts.diagonal().sum() / counts.sum()
        self.log(f"{stage}/loss", self.loss.compute(), sync_dist=True, reduce_fx="max")
        self.log(f"{stage}/accuracy", accuracy, prog_bar=True, sync_dist=True, reduce_fx="max")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the counts of all processes, the temperature, which weight averaging would average, the precision."""
        checkpoint["precision"] = self.trainer.precision
        for state in _states(checkpoint):
            self.counts.gather(state, "counts.")
        checkpoint["state_dict"]["temperature"] = self.temperature.clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with this process's share of them."""
        for state in _states(checkpoint):
            self.counts.share(state, "counts.", self.global_rank)

    def predict_step(self, batch: Batch) -> Tensor:
        """Return probabilities (B, 10), calibrated where there was a validation."""
        pixels, _ = batch
        return calibrated(self(pixels).float(), self.temperature)  # also where logits are in half precision

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam over all parameters, with the schedule of its rate, step by step."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate, betas=self.betas, foreach=True)
        if self.schedule == "constant":
            return optimizer
        cycle = one_cycle(optimizer, self.learning_rate, self.trainer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def _states(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the weights in a checkpoint; with Lightning's WeightAveraging, the averaged ones and those in training."""
    return [checkpoint[name] for name in ("state_dict", "current_model_state") if name in checkpoint]
