"""The LightningModule works with a stock Trainer, and its metrics are exact."""

import math
from pathlib import Path

import pytest
import torch
from conftest import MNIST, stock_trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from mnist_lit import CNN, DigitClassifier, MNISTDataModule


def test_a_notebook_needs_only_a_stock_trainer(data_dir: Path, tmp_path: Path) -> None:
    seed_everything(1, verbose=False)
    data = MNISTDataModule(data_dir=str(data_dir))
    classifier = DigitClassifier(channels=[4, 8], learning_rate=0.01)
    keep = ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    stock = stock_trainer(tmp_path, max_epochs=2, limit_train_batches=60, callbacks=[keep])
    stock.fit(classifier, data)
    [tested] = stock.test(ckpt_path="best", datamodule=data)
    assert tested["test/accuracy"] > 0.9

    loaded = DigitClassifier.load_from_checkpoint(keep.best_model_path)
    assert loaded.hparams == classifier.hparams
    assert (loaded.hparams["channels"], loaded.hparams["learning_rate"]) == ([4, 8], 0.01)
    assert isinstance(loaded.network, CNN)
    [again] = stock_trainer(tmp_path).test(loaded, data)
    assert again == tested


def test_accuracy_and_loss_are_those_of_all_images_also_with_a_smaller_last_batch(
    data_dir: Path, tmp_path: Path
) -> None:
    data = MNISTDataModule(data_dir=str(data_dir), batch_size=999)
    classifier = DigitClassifier(channels=[4])
    [tested] = stock_trainer(tmp_path).test(classifier, data)

    pixels, labels = MNIST.read(data_dir, train=False)
    with torch.no_grad():
        logits = classifier(pixels)
    assert tested["test/accuracy"] == pytest.approx((logits.argmax(dim=1) == labels).double().mean().item())
    assert tested["test/loss"] == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)
    counts = classifier.confusion.compute()
    assert counts.sum() == 10_000
    assert torch.equal(counts.sum(dim=1), torch.bincount(labels))


def test_each_evaluation_counts_from_zero(data_dir: Path, tmp_path: Path) -> None:
    data = MNISTDataModule(data_dir=str(data_dir), batch_size=1_000)
    classifier, stock = DigitClassifier(channels=[4]), stock_trainer(tmp_path)
    stock.validate(classifier, data)
    stock.validate(classifier, data)
    assert classifier.confusion.compute().sum() == 5_000
    stock.test(classifier, data)
    assert classifier.confusion.compute().sum() == 10_000


def test_the_training_loss_is_the_batchs_mean_cross_entropy(data_dir: Path, tmp_path: Path) -> None:
    seed_everything(1, verbose=False)
    data = MNISTDataModule(data_dir=str(data_dir))
    classifier = DigitClassifier(channels=[4])
    before = DigitClassifier(channels=[4])
    before.load_state_dict(classifier.state_dict())
    stock = stock_trainer(tmp_path, max_steps=1, limit_val_batches=0, enable_checkpointing=False)
    stock.fit(classifier, data)
    pixels, labels = next(iter(data.train_dataloader()))
    with torch.no_grad():
        expected = cross_entropy(before(pixels), labels)
    assert_close(stock.callback_metrics["train/loss"], expected)


def test_predictions_are_probabilities(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=False)
    classifier = DigitClassifier(channels=[4])
    probabilities = classifier.predict_step((pixels[:7], labels[:7]))
    assert probabilities.shape == (7, 10)
    assert_close(probabilities.sum(dim=1), torch.ones(7))


@pytest.mark.parametrize("learning_rate", [0.0, -1.0, math.inf, math.nan])
def test_a_learning_rate_that_cannot_learn_is_refused(learning_rate: float) -> None:
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        DigitClassifier(learning_rate=learning_rate)


@pytest.mark.parametrize("betas", [[0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, 0.9, 0.9]])
def test_betas_that_are_none_are_refused(betas: list[float]) -> None:
    with pytest.raises(ValueError, match="betas must be two numbers"):
        DigitClassifier(betas=betas)


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_label_smoothing_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing must be at least 0 and less than 1"):
        DigitClassifier(label_smoothing=value)


def test_training_smooths_labels_and_evaluation_does_not(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=False)
    batch = pixels[:100], labels[:100]
    classifier = DigitClassifier(channels=[4], label_smoothing=0.5)
    logits = classifier(batch[0])
    classifier.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no Trainer to log to
    assert_close(classifier.training_step(batch), cross_entropy(logits, batch[1], label_smoothing=0.5))
    classifier.validation_step(batch)
    assert_close(classifier.loss.compute(), cross_entropy(logits, batch[1]).detach())


def test_validation_finds_the_temperature_and_the_test_tells_what_it_brings(data_dir: Path, tmp_path: Path) -> None:
    seed_everything(1, verbose=False)
    data, stock = MNISTDataModule(data_dir=str(data_dir)), stock_trainer(tmp_path, max_epochs=1)
    classifier = DigitClassifier(channels=[4, 8], learning_rate=0.01)
    stock.fit(classifier, data)
    pixels, labels = (torch.cat(part) for part in zip(*data.val_dataloader(), strict=True))
    classifier.eval()
    with torch.no_grad():
        logits = classifier(pixels)
    losses = [float(cross_entropy(logits / (classifier.temperature * factor), labels)) for factor in (0.98, 1, 1.02)]
    assert losses[1] == min(losses)

    stock.test(classifier, data)
    pixels, labels = MNIST.read(data_dir, train=False)
    with torch.no_grad():
        logits = classifier(pixels)
    for given, metric in (
        (logits, classifier.uncalibrated_error),
        (logits / classifier.temperature, classifier.calibration_error),
    ):
        sure, read = given.softmax(dim=1).max(dim=1)
        bins = (sure * 15).ceil().long()
        shares = [
            float((sure[bins == i].mean() - (read == labels)[bins == i].float().mean()).abs()) * int((bins == i).sum())
            for i in bins.unique()
        ]
        assert float(metric.compute()) == pytest.approx(sum(shares) / len(labels), abs=1e-5)


def test_a_loss_that_is_not_a_number_is_not_left_out(data_dir: Path, tmp_path: Path) -> None:
    classifier = DigitClassifier(channels=[1])
    torch.nn.init.constant_(classifier.network.fc.weight, math.nan)
    stock = stock_trainer(tmp_path, limit_val_batches=1)
    [validated] = stock.validate(classifier, MNISTDataModule(data_dir=str(data_dir)), verbose=False)
    assert math.isnan(validated["val/loss"])
