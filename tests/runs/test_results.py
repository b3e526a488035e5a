"""Results with confidence intervals, and the lines about them."""

from typing import Any

import pytest
import torch

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.runs.results import (
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
        (1.25, "calibration error 0.20%, with temperature 1.25 from validation (0.50% without)"),
        (1.0, "calibration error 0.20%: no temperature, which needs 100 validation images"),
    ],
)
def test_format_calibration(temperature: float, line: str) -> None:
    assert format_calibration(temperature, 0.005, 0.002) == line


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
