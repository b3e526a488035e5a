"""The outputs of an evaluation: confusion, mistakes, calibration errors, and the temperature that is fitted to them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import stock_trainer
from lightning.pytorch import seed_everything
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.training.evaluation import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    Calibration,
    Outputs,
    fit_temperature,
    report_test,
)


def sample(temperature: float, size: int = 20_000) -> tuple[Tensor, Tensor]:
    """Return logits, and labels sampled from their softmax with a temperature."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(size, 10, generator=generator)
    labels = logits.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    return temperature * logits, labels


def outputs_of(logits: Tensor, labels: Tensor) -> Outputs:
    """Return outputs in two batches."""
    outputs = Outputs()
    half = len(labels) // 2
    outputs.batches = [(logits[:half], labels[:half]), (logits[half:], labels[half:])]
    return outputs


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_minimises_the_cross_entropy(temperature: float) -> None:
    logits, labels = sample(temperature)

    def loss(given: float) -> float:
        return float(cross_entropy(logits.double() / given, labels))

    best = minimize_scalar(loss, bounds=(MIN_TEMPERATURE, MAX_TEMPERATURE), method="bounded").x
    assert float(fit_temperature(logits, labels)) == pytest.approx(best, rel=1e-4)
    assert best == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        (torch.eye(10), torch.arange(10), MIN_TEMPERATURE),  # all correct
        (100 * torch.eye(10), torch.arange(10).roll(1), MAX_TEMPERATURE),  # all wrong
        (math.inf * torch.ones(10, 10), torch.arange(10), math.nan),
    ],
    ids=["correct", "wrong", "infinite"],
)
def test_temperature_has_bounds_and_is_nan_for_few_images(logits: Tensor, labels: Tensor, expected: float) -> None:
    found = fit_temperature(logits.repeat(10, 1), labels.repeat(10))
    assert float(found) == pytest.approx(expected, nan_ok=True)
    assert math.isnan(fit_temperature(logits.repeat(9, 1), labels.repeat(9)))


def test_each_evaluation_replaces_the_outputs_of_the_one_before(data_dir: Path, tmp_path: Path) -> None:
    seed_everything(1, verbose=False)
    data = MNISTDataModule(data_dir=str(data_dir), batch_size=999)
    classifier, outputs = DigitClassifier(channels=[4]), Outputs()
    trainer = stock_trainer(tmp_path, callbacks=[outputs])
    for _ in range(2):
        [validated] = trainer.validate(classifier, data, verbose=False)
    assert outputs.confusion().sum() == 5_000
    assert int(outputs.confusion().diagonal().sum()) / 5_000 == pytest.approx(validated["val/accuracy"])
    trainer.test(classifier, data, verbose=False)
    assert torch.equal(outputs.labels, data.test_set.tensors[1])
    with torch.no_grad():
        torch.testing.assert_close(outputs.logits, classifier(data.test_set.tensors[0]))
    results, lines = report_test(trainer, classifier, "0123456789", outputs)
    assert results["total"] == 10_000
    assert results["accuracy"] == pytest.approx(float(trainer.callback_metrics["test/accuracy"]))
    assert results["loss"] == pytest.approx(float(cross_entropy(outputs.logits, outputs.labels)), rel=1e-5)
    assert [line.partition(" ")[0] for line in lines] == ["test", "calibration", "negative", "most"]
    assert lines[2] == f"negative log-likelihood {results['loss']:.4f}", "the temperature is 1"


def test_confusion_has_a_row_for_each_true_class_and_a_column_for_each_prediction() -> None:
    logits, labels = sample(1.0, size=1_000)
    expected = np.zeros((10, 10), dtype=np.int64)
    np.add.at(expected, (labels.numpy(), logits.argmax(dim=1).numpy()), 1)
    assert np.array_equal(outputs_of(logits, labels).confusion().numpy(), expected)


def test_mistakes_are_sorted_by_the_probability_of_the_label() -> None:
    labels, logits = torch.tensor([3, 3, 3, 3]), torch.zeros(4, 10)
    logits[0, 3] = 9  # correct
    logits[1, 8] = 1  # wrong, with low confidence
    logits[2, 5] = 7  # wrong, with high confidence
    logits[3, 9], logits[3, 3] = 7, 6.9  # wrong, by a small margin
    outputs = outputs_of(logits, labels)
    indices, probabilities = outputs.mistakes(10)
    assert indices == [2, 1, 3]
    torch.testing.assert_close(probabilities, logits[indices].softmax(dim=1))
    assert outputs.mistakes(1)[0] == [2]
    indices, probabilities = outputs_of(torch.eye(4), torch.arange(4)).mistakes(10)
    assert (indices, probabilities.shape) == ([], (0, 4))


def test_each_validation_sets_the_temperature_unless_it_is_not_finite(data_dir: Path, tmp_path: Path) -> None:
    seed_everything(1, verbose=False)
    data, outputs = MNISTDataModule(data_dir=str(data_dir)), Outputs()
    trainer = stock_trainer(tmp_path, callbacks=[outputs, Calibration(outputs)], limit_val_batches=2)
    classifier = DigitClassifier(channels=[4])
    trainer.validate(classifier, data, verbose=False)
    fitted = float(classifier.temperature)
    assert fitted == pytest.approx(float(fit_temperature(outputs.logits, outputs.labels)))
    assert fitted != 1
    torch.nn.init.constant_(classifier.network.fc.weight, math.inf)
    trainer.validate(classifier, data, verbose=False)
    assert float(classifier.temperature) == fitted
