"""Results with confidence intervals, and the lines about them."""

from typing import Any

import pytest
import torch

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.runs.results import (
    evaluation_results,
    fit_results,
    format_calibration,
    format_confused,
    format_evaluation,
    format_fit,
    format_seeds,
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
        (None, "calibration error 0.20%"),
    ],
)
def test_format_calibration(temperature: float | None, line: str) -> None:
    assert format_calibration(temperature, 0.005, 0.002) == line


def test_the_most_confused_pairs_are_at_most_three_and_none_without_errors() -> None:
    confusion = torch.eye(10, dtype=torch.int64) * 100
    assert format_confused(confusion, MNIST.classes) == []
    for (true, predicted), count in {(4, 9): 7, (2, 7): 1_000, (7, 2): 3, (0, 6): 4}.items():
        confusion[true, predicted] = count
    assert format_confused(confusion, MNIST.classes) == ["most confused: 2 as 7 (1,000×), 4 as 9 (7×), 0 as 6 (4×)"]


def test_format_fit() -> None:
    results = fit_results(epochs=3, seconds=10, images=165_000, best_epoch=2, best_val_accuracy=0.991)
    assert results["images_per_second"] == 16_500
    assert format_fit(results) == (
        "trained 3 epochs in 10.0 s, 16,500 images a second\nbest validation accuracy 99.10% in epoch 2"
    )
    assert format_fit(results, last_epoch=True).endswith("\nvalidation accuracy 99.10% after epoch 2")
    assert "no validation: the best checkpoint is the last, epoch 2" in format_fit(
        results | {"best_val_accuracy": None}
    )
    assert format_fit(results, batches=13).startswith("trained 3 epochs and 13 batches in 10.0 s")
    unfinished = fit_results(epochs=1, seconds=1, images=100, best_epoch=None, best_val_accuracy=None)
    assert format_fit(unfinished).splitlines() == [
        "trained 1 epoch in 1.0 s, 100 images a second",
        "there is no checkpoint, and nothing to test",
    ]


def test_table_of_seeds() -> None:
    runs = {
        seed: (
            f"version_{seed - 777}",
            {"fit": {"best_val_accuracy": validation, "seconds": 100.0 + seed - 777}, "test": {"accuracy": test}},
        )
        for seed, validation, test in [(777, 0.990, 0.991), (778, 0.992, 0.990), (779, 0.988, 0.989)]
    }
    assert format_seeds(runs).splitlines() == [
        "seed       run           validation        test     seconds",
        "777        version_0         99.00%      99.10%       100.0",
        "778        version_1         99.20%      99.00%       101.0   best",
        "779        version_2         98.80%      98.90%       102.0   worst",
        "mean                         99.00%      99.00%       101.0",
        "95 % from                    98.50%      98.75%",
        "     to                      99.50%      99.25%",
        "sd                            0.20%       0.10%         1.0",
    ]


def test_table_of_seeds_without_validation_or_test() -> None:
    runs: dict[int, tuple[str, dict[str, Any]]] = {
        seed: (f"version_{seed}", {"fit": {"best_val_accuracy": None, "seconds": 1.0}, "test": {"accuracy": accuracy}})
        for seed, accuracy in enumerate((0.99, 0.98))
    }
    lines = format_seeds(runs).splitlines()
    assert lines[1].endswith("best")
    assert lines[3].split() == ["mean", "98.50%", "1.0"]
    for _, results in runs.values():
        del results["test"]
    lines = format_seeds(runs).splitlines()
    assert lines[1].split() == ["0", "version_0", "1.0"]
    assert lines[3].split() == ["mean", "1.0"]
    assert len(format_seeds({0: runs[0]}).splitlines()) == 2, "one run has no mean"
