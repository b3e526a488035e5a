"""Probabilities become as high as they are often right, and answers stay the same."""

import math
from pathlib import Path

import pytest
import torch
from conftest import stock_trainer
from torch.nn.functional import cross_entropy

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.calibration import COOLEST, HOTTEST, BestTemperature


def logits_of(truth: float, size: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits that are `truth` times as large as they should be, and labels drawn accordingly."""
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(size, 10, generator=generator)
    labels = honest.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    return truth * honest, labels


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_hidden_is_found_in_batches_of_any_size(truth: float) -> None:
    logits, labels = logits_of(truth)
    best = BestTemperature()
    for batch in range(0, len(labels), 777):
        best.update(logits[batch : batch + 777], labels[batch : batch + 777])
    assert float(best.compute()) == pytest.approx(truth, rel=0.05)


def test_no_other_temperature_has_less_cross_entropy() -> None:
    logits, labels = logits_of(1.7, size=500)
    best = BestTemperature()
    best.update(logits, labels)
    found = best.compute()
    losses = [float(cross_entropy(logits.double() / (found * factor), labels)) for factor in (0.99, 1, 1.01)]
    assert losses[1] == min(losses)


def test_few_images_that_are_all_right_do_not_make_certain() -> None:
    best = BestTemperature()
    best.update(torch.eye(10), torch.arange(10))
    assert float(best.compute()) == pytest.approx(COOLEST)


def test_a_temperature_that_is_not_finite_does_not_replace_the_one_before(data_dir: Path, tmp_path: Path) -> None:
    classifier = DigitClassifier(channels=[1])
    classifier.temperature.fill_(1.5)
    torch.nn.init.constant_(classifier.network.fc.weight, math.inf)
    stock_trainer(tmp_path, limit_val_batches=1).validate(
        classifier, MNISTDataModule(data_dir=str(data_dir)), verbose=False
    )
    assert float(classifier.temperature) == 1.5


def test_images_that_are_all_wrong_make_as_unsure_as_may_be() -> None:
    best = BestTemperature()
    best.update(100 * torch.eye(10), (torch.arange(10) + 1) % 10)
    assert float(best.compute()) == pytest.approx(HOTTEST)
