"""The results of a run: as dictionaries for `results.json`, and formatted for people."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import NormalDist, fmean, stdev
from typing import Any

from torch import Tensor

from mnist_lit.runs.comparison import mean_interval
from mnist_lit.system.errors import printable

__all__ = [
    "evaluation_results",
    "fit_results",
    "format_calibration",
    "format_confused",
    "format_evaluation",
    "format_fit",
    "format_seeds",
    "wilson_interval",
]


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    >>> low, high = wilson_interval(9911, 10_000)
    >>> print(f"{low:.4f} {high:.4f}")
    0.9891 0.9928
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p, n = correct / total, total
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half_width = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def fit_results(
    *, epochs: int, seconds: float, images: int, best_epoch: int | None, best_val_accuracy: float | None
) -> dict[str, Any]:
    """Return the results of the training.

    Args:
        epochs: number of complete epochs.
        seconds: time of training and validation.
        images: number of training images in that time, in all epochs.
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


def format_confused(confusion: Tensor, classes: Sequence[str], number: int = 3) -> list[str]:
    """Return a line about the classes that are most often taken for others, or none if there are no errors.

    Args:
        confusion: int64 (K, K), rows are true classes.
        classes: K names.
        number: of pairs.

    >>> import torch
    >>> format_confused(torch.tensor([[9, 1, 0], [0, 8, 2], [0, 0, 9]]), ["a", "b", "c"])
    ['most confused: b as c (2×), a as b (1×)']
    """
    errors = confusion.clone().fill_diagonal_(0)
    order = errors.flatten().argsort(descending=True, stable=True)[:number].tolist()
    pairs = [(place // len(classes), place % len(classes)) for place in order]
    counted = [(classes[i], classes[j], int(errors[i, j])) for i, j in pairs if errors[i, j]]
    if not counted:
        return []
    return [
        "most confused: "
        + ", ".join(f"{printable(true)} as {printable(other)} ({count:,}×)" for true, other, count in counted)
    ]


def format_calibration(temperature: float | None, before: float, after: float) -> str:
    """Return a line about the expected calibration errors before and after temperature scaling.

    An ensemble has no temperature of its own (None).
    """
    if temperature is None:
        return f"calibration error {after:.2%}"
    if temperature == 1:
        return f"calibration error {after:.2%}: no temperature, which needs 100 validation images"
    return f"calibration error {after:.2%}, with temperature {temperature:.2f} from validation ({before:.2%} without)"


def format_fit(results: dict[str, Any], batches: int = 0, *, last_epoch: bool = False) -> str:
    """Return two lines about the results of the training.

    Args:
        results: as returned by `fit_results`.
        batches: number of batches of a last, incomplete epoch.
        last_epoch: whether the best checkpoint is the last epoch that was validated, instead of the best one.
    """
    trained = "1 epoch" if results["epochs"] == 1 else f"{results['epochs']:,} epochs"
    if batches:
        trained += " and 1 batch" if batches == 1 else f" and {batches:,} batches"
    speed = f"trained {trained} in {results['seconds']:.1f} s, {results['images_per_second']:,.0f} images a second"
    if results["best_epoch"] is None:
        return f"{speed}\nthere is no checkpoint, and nothing to test"
    if (accuracy := results["best_val_accuracy"]) is None:
        return f"{speed}\nno validation: the best checkpoint is the last, epoch {results['best_epoch']}"
    if last_epoch:
        return f"{speed}\nvalidation accuracy {accuracy:.2%} after epoch {results['best_epoch']}"
    return f"{speed}\nbest validation accuracy {accuracy:.2%} in epoch {results['best_epoch']}"


def format_seeds(results: Mapping[int, tuple[str, dict[str, Any]]]) -> str:
    """Return a table of runs that differ in their seeds only: each run, then the mean, its interval, and the spread.

    The best and the worst run are those by validation accuracy or, without validation, by test accuracy.

    Args:
        results: name and results of each run by its seed.
    """
    runs = [found for _, found in results.values()]
    columns = {
        "validation": ("{:.2%}", [found["fit"]["best_val_accuracy"] for found in runs]),
        "test": ("{:.2%}", [found.get("test", {}).get("accuracy") for found in runs]),
        "seconds": ("{:.1f}", [found["fit"]["seconds"] for found in runs]),
    }
    notes = [""] * len(runs)
    for _, accuracies in (columns["validation"], columns["test"]):
        if len(runs) > 1 and None not in accuracies:
            notes[accuracies.index(min(accuracies))] = "   worst"
            notes[accuracies.index(max(accuracies))] = "   best"
            break
    rows = [("seed", "run", [*columns], "")]
    for i, (seed, (name, _)) in enumerate(results.items()):
        cells = ["" if values[i] is None else form.format(values[i]) for form, values in columns.values()]
        rows.append((str(seed), name, cells, notes[i]))
    if len(runs) > 1:
        known = [[] if None in values else values for _, values in columns.values()]
        intervals = [mean_interval(accuracies) for accuracies in known[:2]]
        summaries = {
            "mean": [fmean(values) if values else None for values in known],
            "95 % from": [interval and interval[0] for interval in intervals] + [None],
            "     to": [interval and interval[1] for interval in intervals] + [None],
            "sd": [stdev(values) if values else None for values in known],
        }
        forms = [form for form, _ in columns.values()]
        for name, found in summaries.items():
            cells = ["" if value is None else form.format(value) for form, value in zip(forms, found, strict=True)]
            rows.append((name, "", cells, ""))
    return "\n".join(
        f"{seed:<10} {name:<12}{''.join(f'{cell:>12}' for cell in cells)}{note}".rstrip()
        for seed, name, cells, note in rows
    )
