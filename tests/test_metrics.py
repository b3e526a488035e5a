"""Training metrics, temperature scaling, and the mistakes of an evaluation."""

import math
from pathlib import Path

import pytest
import torch
from conftest import stock_trainer
from torch.nn.functional import cross_entropy

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.metrics import MAX_TEMPERATURE, MIN_TEMPERATURE, EpochMetrics, Mistakes, TemperatureScaling


def sample(temperature: float, size: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits, and labels sampled from their softmax with a temperature."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(size, 10, generator=generator)
    labels = logits.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    return temperature * logits, labels


def test_training_metrics_are_means_over_images_not_batches() -> None:
    metrics = EpochMetrics()
    logits, labels = sample(1.0, size=25)
    for batch in (slice(20), slice(20, 25)):
        metrics.update(cross_entropy(logits[batch], labels[batch]), logits[batch], labels[batch])
    computed = metrics.compute()
    torch.testing.assert_close(computed["train/loss"], cross_entropy(logits, labels))
    assert float(computed["train/accuracy"]) == pytest.approx(int((logits.argmax(dim=1) == labels).sum()) / 25)


def test_training_metrics_of_earlier_checkpoints_are_loaded() -> None:
    former = {"loss.mean_value": 3.0, "loss.weight": 4.0, "accuracy.tp": [2], "accuracy.fp": [2]}
    state = {f"counts.{name}": torch.tensor(value) for name, value in former.items()}
    classifier = DigitClassifier(channels=[1])
    weights = {name: value for name, value in classifier.state_dict().items() if not name.startswith("counts.")}
    classifier.load_state_dict(weights | state)
    classifier.counts.update(torch.tensor(1.0), torch.eye(4), torch.arange(4))
    assert classifier.counts.compute() == {"train/loss": torch.tensor(0.875), "train/accuracy": torch.tensor(0.75)}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_recovered_from_batches(temperature: float) -> None:
    logits, labels = sample(temperature)
    scaling = TemperatureScaling()
    for batch in range(0, len(labels), 777):
        scaling.update(logits[batch : batch + 777], labels[batch : batch + 777])
    assert float(scaling.compute()) == pytest.approx(temperature, rel=0.05)


def test_temperature_minimises_the_cross_entropy() -> None:
    logits, labels = sample(1.7, size=500)
    scaling = TemperatureScaling()
    scaling.update(logits, labels)
    temperature = scaling.compute()
    losses = [float(cross_entropy(logits.double() / (temperature * factor), labels)) for factor in (0.99, 1, 1.01)]
    assert losses[1] == min(losses)


def test_temperature_has_a_minimum_if_all_images_are_correct() -> None:
    scaling = TemperatureScaling()
    scaling.update(torch.eye(10).repeat(10, 1), torch.arange(10).repeat(10))
    assert float(scaling.compute()) == pytest.approx(MIN_TEMPERATURE)


def test_temperature_has_a_maximum_if_all_images_are_wrong() -> None:
    scaling = TemperatureScaling()
    scaling.update(100 * torch.eye(10).repeat(10, 1), (torch.arange(10).repeat(10) + 1) % 10)
    assert float(scaling.compute()) == pytest.approx(MAX_TEMPERATURE)


def test_few_images_give_no_temperature() -> None:
    scaling = TemperatureScaling()
    scaling.update(torch.eye(10).repeat(9, 1), torch.arange(10).repeat(9))
    assert math.isnan(scaling.compute())
    scaling.update(torch.eye(10), torch.arange(10))
    assert float(scaling.compute()) == pytest.approx(MIN_TEMPERATURE)


def test_temperature_that_is_not_finite_is_ignored(data_dir: Path, tmp_path: Path) -> None:
    classifier = DigitClassifier(channels=[1])
    classifier.temperature.fill_(1.5)
    torch.nn.init.constant_(classifier.network.fc.weight, math.inf)
    data = MNISTDataModule(data_dir=str(data_dir))
    stock_trainer(tmp_path, limit_val_batches=1).validate(classifier, data, verbose=False)
    assert float(classifier.temperature) == 1.5


def test_mistakes_are_sorted_by_the_probability_of_the_label() -> None:
    labels, logits = torch.tensor([3, 3, 3, 3]), torch.zeros(4, 10)
    logits[0, 3] = 9  # correct
    logits[1, 8] = 1  # wrong, with low confidence
    logits[2, 5] = 7  # wrong, with high confidence
    logits[3, 9], logits[3, 3] = 7, 6.9  # wrong, by a small margin
    pixels = torch.arange(4).view(4, 1, 1, 1).expand(4, 1, 28, 28)
    mistakes = Mistakes()
    mistakes.update(pixels[:2], labels[:2], logits[:2])
    mistakes.update(pixels[2:], labels[2:], logits[2:])
    worst, true, probabilities = mistakes.worst(10)
    assert worst[:, 0, 0, 0].tolist() == [2, 1, 3]
    assert true.tolist() == [3, 3, 3]
    assert probabilities.argmax(dim=1).tolist() == [5, 8, 9]
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(3))
    assert mistakes.worst(1)[0][0, 0, 0, 0] == 2


def test_there_may_be_no_mistakes() -> None:
    mistakes = Mistakes()
    mistakes.update(torch.zeros(3, 1, 28, 28), torch.zeros(3, dtype=torch.int64), torch.eye(3, 10)[[0, 0, 0]])
    pixels, labels, probabilities = mistakes.worst(10)
    assert (len(pixels), len(labels), len(probabilities)) == (0, 0, 0)
