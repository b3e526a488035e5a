"""Figures that are only shown or reported, computed from the logits that validation and test steps return."""

from collections.abc import Sequence
from math import nan
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_confusion_matrix

from mnist_lit.classifier import DigitClassifier
from mnist_lit.runs.results import (
    calibration_error,
    evaluation_results,
    format_calibration,
    format_confused,
    format_evaluation,
)

__all__ = ["Calibration", "Outputs", "fit_temperature", "other_metrics", "report_test"]

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.2, 5.0
"""Without bounds, images that are all classified correctly would give a temperature of 0."""
MIN_IMAGES = 100
"""Images needed to fit a temperature: fewer are often all classified correctly."""


class Outputs(Callback):
    """Keep the logits and labels of the latest validation or test: every process evaluates all images."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []

    def on_validation_epoch_start(self, *_: Any, **__: Any) -> None:
        """Discard the outputs of the evaluation before this one."""
        self.batches = []

    def on_validation_batch_end(self, *args: Any, **_: Any) -> None:
        """Keep the logits and labels of a batch."""
        _trainer, _module, logits, (_, labels) = args[:4]
        self.batches.append((logits.detach(), labels))

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    @property
    def logits(self) -> Tensor:
        """Logits of the images, float32 (N, K)."""
        return torch.cat([logits for logits, _ in self.batches]).cpu().float()

    @property
    def labels(self) -> Tensor:
        """Labels of the images, int64 (N,)."""
        return torch.cat([labels for _, labels in self.batches]).cpu()

    def confusion(self) -> Tensor:
        """Return how many images of class i were classified as class j, int64 (K, K)."""
        logits = self.logits
        return multiclass_confusion_matrix(logits, self.labels, logits.shape[1], validate_args=False)

    def mistakes(self, number: int) -> tuple[list[int], Tensor]:
        """Return up to `number` misclassified images, those with the lowest probability of the label first.

        Returns:
            Their indices, and the probabilities of the classes, (N, K).
        """
        probabilities, labels = self.logits.softmax(dim=1), self.labels
        wrong = (probabilities.argmax(dim=1) != labels).nonzero()[:, 0]
        order = probabilities[wrong, labels[wrong]].argsort(stable=True)[:number]
        return wrong[order].tolist(), probabilities[wrong[order]]


class Calibration(Callback):
    """Fit the temperature to the images of each validation.

    Args:
        outputs: the outputs of the validation.
    """

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the temperature, after callbacks that average weights have put the current ones back."""
        if trainer.sanity_checking:
            return
        temperature = fit_temperature(self.outputs.logits, self.outputs.labels)
        if temperature.isfinite():
            cast("DigitClassifier", pl_module).temperature.copy_(temperature)


def fit_temperature(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the temperature that minimises the cross-entropy of logits divided by it (Guo et al. 2017).

    It calibrates probabilities and changes no classification (arXiv:1706.04599). The images must not be those that the
    network was trained on.

    Args:
        logits: logits of the images, (N, K).
        labels: labels of the images, (N,).

    Returns:
        The temperature (), float32 on the CPU, by Newton's method: the loss is convex in its inverse. It is NaN for
        fewer than 100 images.

    >>> logits, labels = torch.tensor([[2.0, 0.0]] * 100), torch.tensor([0, 0, 0, 1] * 25)
    >>> round(float((2 / fit_temperature(logits, labels)).sigmoid()), 3)  # three of four are correct
    0.75
    """
    if len(labels) < MIN_IMAGES:
        return torch.tensor(nan)
    # MPS has no float64. Moved first, then converted: one call of `to` would convert on the device.
    logits, labels = logits.cpu().double(), labels.cpu()
    target = logits.gather(1, labels[:, None])[:, 0]  # (N,)
    inverse = logits.new_ones(())
    for _ in range(20):
        probabilities = (inverse * logits).softmax(dim=1)  # (N, K)
        mean = (probabilities * logits).sum(dim=1)
        variance = (probabilities * logits.square()).sum(dim=1) - mean.square()
        step = (target - mean).mean() / variance.mean().clamp(min=1e-9)
        inverse = (inverse + step.clamp(-inverse / 2, inverse)).clamp(1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE)
    return (1 / inverse).float()


def report_test(
    trainer: Trainer, classifier: DigitClassifier, classes: Sequence[str], outputs: Outputs
) -> tuple[dict[str, Any], list[str]]:
    """Return the results of a test, for `results.json`, and lines about them."""
    confusion = outputs.confusion()
    results = evaluation_results(confusion, float(trainer.callback_metrics["test/loss"]))
    logits, labels, temperature = outputs.logits, outputs.labels, classifier.temperature.cpu()
    before, _ = calibration_error(logits.softmax(dim=1), labels)
    after, chance = calibration_error((logits / temperature).softmax(dim=1), labels)
    lines = [format_evaluation("test", results), format_calibration(float(temperature), before, after, chance)]
    lines.append(f"negative log-likelihood {float(cross_entropy(logits / temperature, labels)):.4f}")
    others = other_metrics(trainer, "test")
    results = others | results | {"checkpoint": "checkpoints/best.ckpt"}
    return results, [*lines, *format_confused(confusion, classes), *(f"test/{n} {v:.4f}" for n, v in others.items())]


def other_metrics(trainer: Trainer, stage: str) -> dict[str, float]:
    """Return the metrics that the user's code has logged in a stage, `val` or `test`, by their names without it."""
    start, metrics = f"{stage}/", trainer.callback_metrics.items()
    logged = {name.removeprefix(start): float(value) for name, value in metrics if name.startswith(start)}
    return {name: value for name, value in logged.items() if name not in {"loss", "accuracy"}}
