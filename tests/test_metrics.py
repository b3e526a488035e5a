"""Probabilities become as high as they are often right, and answers stay the same."""

import math
from pathlib import Path

import pytest
import torch
from conftest import stock_trainer
from torch.nn.functional import cross_entropy

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.metrics import MAX_TEMPERATURE, MIN_TEMPERATURE, Mistakes, TemperatureScaling


def logits_of(truth: float, size: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits that are `truth` times as large as they should be, and labels drawn accordingly."""
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(size, 10, generator=generator)
    labels = honest.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    return truth * honest, labels


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_hidden_is_found_in_batches_of_any_size(truth: float) -> None:
    logits, labels = logits_of(truth)
    best = TemperatureScaling()
    for batch in range(0, len(labels), 777):
        best.update(logits[batch : batch + 777], labels[batch : batch + 777])
    assert float(best.compute()) == pytest.approx(truth, rel=0.05)


def test_no_other_temperature_has_less_cross_entropy() -> None:
    logits, labels = logits_of(1.7, size=500)
    best = TemperatureScaling()
    best.update(logits, labels)
    found = best.compute()
    losses = [float(cross_entropy(logits.double() / (found * factor), labels)) for factor in (0.99, 1, 1.01)]
    assert losses[1] == min(losses)


def test_few_images_that_are_all_right_do_not_make_certain() -> None:
    best = TemperatureScaling()
    best.update(torch.eye(10), torch.arange(10))
    assert float(best.compute()) == pytest.approx(MIN_TEMPERATURE)


def test_a_temperature_that_is_not_finite_does_not_replace_the_one_before(data_dir: Path, tmp_path: Path) -> None:
    classifier = DigitClassifier(channels=[1])
    classifier.temperature.fill_(1.5)
    torch.nn.init.constant_(classifier.network.fc.weight, math.inf)
    stock_trainer(tmp_path, limit_val_batches=1).validate(
        classifier, MNISTDataModule(data_dir=str(data_dir)), verbose=False
    )
    assert float(classifier.temperature) == 1.5


def test_images_that_are_all_wrong_make_as_unsure_as_may_be() -> None:
    best = TemperatureScaling()
    best.update(100 * torch.eye(10), (torch.arange(10) + 1) % 10)
    assert float(best.compute()) == pytest.approx(MAX_TEMPERATURE)


def test_mistakes_come_worst_first() -> None:
    labels, logits = torch.tensor([3, 3, 3, 3]), torch.zeros(4, 10)
    logits[0, 3] = 9  # right
    logits[1, 8] = 1  # wrong, a little
    logits[2, 5] = 7  # wrong, and quite sure
    logits[3, 9], logits[3, 3] = 7, 6.9  # nearly right
    pixels = torch.arange(4).view(4, 1, 1, 1).expand(4, 1, 28, 28)
    mistakes = Mistakes()
    mistakes.update(pixels[:2], labels[:2], logits[:2])
    mistakes.update(pixels[2:], labels[2:], logits[2:])
    found, truth, probabilities = mistakes.worst(10)
    assert found[:, 0, 0, 0].tolist() == [2, 1, 3]
    assert truth.tolist() == [3, 3, 3]
    assert probabilities.argmax(dim=1).tolist() == [5, 8, 9]
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(3))
    assert mistakes.worst(1)[0][0, 0, 0, 0] == 2


def test_there_may_be_none() -> None:
    mistakes = Mistakes()
    mistakes.update(torch.zeros(3, 1, 28, 28), torch.zeros(3, dtype=torch.int64), torch.eye(3, 10)[[0, 0, 0]])
    pixels, labels, probabilities = mistakes.worst(10)
    assert (len(pixels), len(labels), len(probabilities)) == (0, 0, 0)
