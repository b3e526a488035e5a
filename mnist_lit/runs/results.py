"""What a run came to: numbers with their uncertainty, and the lines that tell them."""

from math import sqrt
from statistics import NormalDist
from typing import Any

from torch import Tensor

__all__ = [
    "evaluation_results",
    "fit_results",
    "format_calibration",
    "format_evaluation",
    "format_fit",
    "wilson_interval",
]


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    >>> low, high = wilson_interval(9911, 10_000)
    >>> print(f"{low:.4f} {high:.4f}")
    0.9891 0.9928
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, n = correct / total, total
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def fit_results(
    *, epochs: int, seconds: float, images: int, best_epoch: int | None, best_val_accuracy: float | None
) -> dict[str, Any]:
    """Return the `fit` part of results.json.

    Args:
        epochs: finished ones; one that a limit has cut is not counted.
        seconds: of training, with its validations.
        images: how many were trained on in that time, each as often as it was used.
        best_epoch: of the best checkpoint, counted from 1, if there is one.
        best_val_accuracy: of the best checkpoint, if there was a validation.
    """
    return {
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "images_per_second": round(images / seconds, 1) if seconds else 0.0,
        "best_epoch": best_epoch,
        "best_val_accuracy": None if best_val_accuracy is None else round(best_val_accuracy, 6),
    }


def evaluation_results(confusion: Tensor, loss: float) -> dict[str, Any]:
    """Return the `test` part of results.json from the counts (10, 10) of true and read digits."""
    correct, total = int(confusion.diagonal().sum()), int(confusion.sum())
    return {
        "accuracy": correct / total,
        "loss": loss,
        "correct": correct,
        "total": total,
        "interval_95": [round(bound, 6) for bound in wilson_interval(correct, total)],
    }


def format_evaluation(name: str, result: dict[str, Any]) -> str:
    """Tell an evaluation in one line."""
    low, high = result["interval_95"]
    return (
        f"{name} accuracy {result['accuracy']:.2%} (95% interval {low:.2%} to {high:.2%}): "
        f"{result['total'] - result['correct']:,} errors in {result['total']:,}"
    )


def format_calibration(temperature: float, before: float, after: float) -> str:
    """Tell in one line how far probabilities are from how often they are right, before and after calibration."""
    if temperature == 1:
        return f"calibration error {after:.2%}: probabilities are as the network gives them, without validation"
    return f"calibration error {after:.2%}, with temperature {temperature:.2f} from validation ({before:.2%} without)"


def format_fit(fit: dict[str, Any], batches: int = 0) -> str:
    """Tell a training in two lines.

    Args:
        fit: the `fit` part of results.json.
        batches: of an epoch that a limit has cut.
    """
    trained = "1 epoch" if fit["epochs"] == 1 else f"{fit['epochs']:,} epochs"
    if batches:
        trained += " and 1 batch" if batches == 1 else f" and {batches:,} batches"
    cost = f"trained {trained} in {fit['seconds']:.1f} s, {fit['images_per_second']:,.0f} images a second"
    if fit["best_epoch"] is None:
        return f"{cost}\nthere is no checkpoint, and nothing to test"
    if (score := fit["best_val_accuracy"]) is None:
        return f"{cost}\nno validation: the best checkpoint is the last, epoch {fit['best_epoch']}"
    return f"{cost}\nbest validation accuracy {score:.2%} in epoch {fit['best_epoch']}"
