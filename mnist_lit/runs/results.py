"""The results of a run: as dictionaries for `results.json`, and formatted for people."""

from collections.abc import Sequence
from math import pi, sqrt
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "calibration_error",
    "evaluation_results",
    "format_calibration",
    "format_confused",
    "format_evaluation",
    "format_fit",
    "wilson_interval",
]

BINS = 15
"""Bins of confidence, in which accuracies are compared with it."""


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95% confidence interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    >>> low, high = wilson_interval(9911, 10_000)
    >>> print(f"{low:.4f} {high:.4f}")
    0.9891 0.9928
    """
    z = NormalDist().inv_cdf(0.975)
    p, n = correct / total, total
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half_width = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def evaluation_results(confusion: Tensor, loss: float) -> dict[str, Any]:
    """Return the results of an evaluation from its confusion matrix, (K, K), and its loss."""
    correct, total = int(confusion.diagonal().sum()), int(confusion.sum())
    return {
        "accuracy": correct / total,
        "loss": loss,
        "correct": correct,
        "total": total,
        "interval_95": [round(bound, 6) for bound in wilson_interval(correct, total)],
    }


def format_evaluation(name: str, results: dict[str, Any]) -> str:
    """Return a line about the results of an evaluation."""
    low, high = results["interval_95"]
    return (
        f"{name} accuracy {results['accuracy']:.2%} (95% interval {low:.2%} to {high:.2%}): "
        f"{results['total'] - results['correct']:,} errors in {results['total']:,}"
    )


def format_confused(confusion: Tensor, classes: Sequence[str]) -> list[str]:
    """Return a line about the three pairs of classes that are most often confused, or none if there are no errors.

    The rows of the confusion matrix, int64 (K, K), are true classes.

    >>> import torch
    >>> format_confused(torch.tensor([[9, 1, 0], [0, 8, 2], [0, 0, 9]]), ["a", "b", "c"])
    ['most confused: b as c (2×), a as b (1×)']
    """
    errors = confusion.clone().fill_diagonal_(0)
    order = errors.flatten().argsort(descending=True, stable=True)[:3].tolist()
    pairs = [(place // len(classes), place % len(classes)) for place in order]
    named = [(classes[i], classes[j], int(errors[i, j])) for i, j in pairs if errors[i, j]]
    listed = ", ".join(f"{true} as {other} ({count:,}×)" for true, other, count in named)
    return [f"most confused: {listed}"] if listed else []


def calibration_error(probabilities: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the expected calibration error of probabilities, and what calibrated ones would have on as many images.

    It is the mean difference of confidence and accuracy in 15 bins of confidence (Guo et al. 2017, arXiv:1706.04599).
    The last bin includes 1: torchmetrics 1.9 has a bin of its own for it. The differences are absolute values, so that
    chance alone makes an error: the second figure is its mean, by the normal approximation.

    Args:
        probabilities: (N, K).
        labels: (N,).

    >>> import torch
    >>> error, floor = calibration_error(torch.tensor([[0.95, 0.05], [1.0, 0.0]]), torch.tensor([0, 1]))
    >>> round(error, 3)
    0.475
    """
    # MPS has no float64. Moved first, then converted: one call of `to` would convert on the device.
    probabilities, labels = probabilities.cpu().double(), labels.cpu()
    confidences, predictions = probabilities.max(dim=1)
    bins = (confidences * BINS).ceil().long().clamp(1, BINS) - 1  # (N,)
    gaps, variances = confidences.new_zeros(2, BINS)
    gaps = gaps.index_add(0, bins, torch.where(predictions == labels, 1 - confidences, -confidences))
    variances = variances.index_add(0, bins, confidences * (1 - confidences))
    return float(gaps.abs().sum() / len(labels)), float((2 / pi * variances).sqrt().sum() / len(labels))


def format_calibration(temperature: float, before: float, after: float, floor: float) -> str:
    """Return a line about the calibration errors before and after temperature scaling, and that of calibrated ones."""
    line = f"calibration error {after:.2%} ({floor:.2%} is chance)"
    if temperature == 1:
        return f"{line}: no validation of 100 images has fitted a temperature"
    return f"{line}, with temperature {temperature:.2f} from validation ({before:.2%} without)"


def format_fit(fit: dict[str, Any]) -> list[str]:
    """Return two lines about the results of a training, as `results.json` has them."""
    trained = {0: "less than an epoch", 1: "1 epoch"}.get(fit["epochs"], f"{fit['epochs']:,} epochs")
    if not fit["best_epoch"]:
        best = "no epoch was validated at its end: the best checkpoint has the weights of the last step"
    elif (accuracy := fit["best_val_accuracy"]) is None:
        best = "no validation: the best checkpoint is the last epoch"
    else:
        best = f"best validation accuracy {accuracy:.2%} in epoch {fit['best_epoch']}"
    return [f"trained {trained} in {fit['seconds']:.1f} s, {fit['images_per_second']:,.0f} images a second", best]
