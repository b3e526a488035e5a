"""Results with confidence intervals, and the lines about them."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.runs.results import (
    calibration_error,
    evaluation_results,
    format_calibration,
    format_confused,
    format_evaluation,
    format_fit,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(9911, 10_000, 0.98906, 0.99276), (0, 10, 0.0, 0.27754), (10, 10, 0.72246, 1.0), (1, 2, 0.09453, 0.90547)],
)
def test_wilson_interval(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=1e-5)


def test_evaluation_results_of_a_confusion_matrix() -> None:
    confusion = torch.diag(torch.full((10,), 990))
    confusion[4, 9] = 100
    results = evaluation_results(confusion, loss=0.5)
    low, high = wilson_interval(9_900, 10_000)
    assert results == {
        "accuracy": 0.99,
        "loss": 0.5,
        "correct": 9_900,
        "total": 10_000,
        "interval_95": [round(low, 6), round(high, 6)],
    }
    assert format_evaluation("test", results) == (
        "test accuracy 99.00% (95% interval 98.79% to 99.18%): 100 errors in 10,000"
    )


@pytest.mark.parametrize(
    ("temperature", "line"),
    [
        (1.25, "calibration error 0.20% (0.10% is chance), with temperature 1.25 from validation (0.50% without)"),
        (1.0, "calibration error 0.20% (0.10% is chance): no validation of 100 images has fitted a temperature"),
    ],
)
def test_format_calibration(temperature: float, line: str) -> None:
    assert format_calibration(temperature, 0.005, 0.002, 0.001) == line


def test_the_most_confused_pairs_are_at_most_three_and_none_without_errors() -> None:
    confusion = torch.eye(10, dtype=torch.int64) * 100
    assert format_confused(confusion, MNIST.classes) == []
    for (true, predicted), count in {(4, 9): 7, (2, 7): 1_000, (7, 2): 3, (0, 6): 4}.items():
        confusion[true, predicted] = count
    assert format_confused(confusion, MNIST.classes) == ["most confused: 2 as 7 (1,000×), 4 as 9 (7×), 0 as 6 (4×)"]


@pytest.mark.parametrize(
    ("changed", "lines"),
    [
        ({}, ["trained 3 epochs in 10.0 s, 16,500 images a second", "best validation accuracy 99.10% in epoch 2"]),
        (
            {"epochs": 1, "best_epoch": 1, "best_val_accuracy": None},
            [
                "trained 1 epoch in 10.0 s, 16,500 images a second",
                "no validation: the best checkpoint is the last epoch",
            ],
        ),
        (
            {"epochs": 0, "best_epoch": None, "best_val_accuracy": None},
            [
                "trained less than an epoch in 10.0 s, 16,500 images a second",
                "no epoch was validated at its end: the best checkpoint has the weights of the last step",
            ],
        ),
    ],
)
def test_format_fit(changed: dict[str, Any], lines: list[str]) -> None:
    fit = {"epochs": 3, "seconds": 10.0, "images_per_second": 16_500.0, "best_epoch": 2, "best_val_accuracy": 0.991}
    assert format_fit(fit | changed) == lines


def reference_error(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the expected calibration error, written with NumPy (case by case: 15 bins, the last one closed)."""
    confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidences * 15).astype(int) - 1, 0, 14)
    return float(sum(abs((right - confidences)[bins == number].sum()) for number in range(15)) / len(labels))


@pytest.mark.parametrize("scale", [0.5, 3.0, 12.0, 60.0])
def test_calibration_error_is_that_of_15_bins_of_which_the_last_has_1(scale: float) -> None:
    """Saturated probabilities are among them: torchmetrics 1.9 has a sixteenth bin for 1 (its issue 3510)."""
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(5_000, 10, generator=generator)
    labels = torch.where(
        torch.rand(5_000, generator=generator) < 0.8,
        logits.argmax(dim=1),
        torch.randint(10, (5_000,), generator=generator),
    )
    probabilities = logits.softmax(dim=1)
    error, _ = calibration_error(probabilities, labels)
    assert error == pytest.approx(reference_error(probabilities.double().numpy(), labels.numpy()), abs=1e-9)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_error_of_calibrated_probabilities_is_as_stated(scale: float) -> None:
    generator, errors, floors = torch.Generator().manual_seed(1), [], []
    for _ in range(50):
        probabilities = (scale * torch.randn(10_000, 10, generator=generator)).softmax(dim=1)
        labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
        error, floor = calibration_error(probabilities, labels)
        errors.append(error)
        floors.append(floor)
    assert np.mean(errors) == pytest.approx(np.mean(floors), rel=0.1)
