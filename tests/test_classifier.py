"""The LightningModule: training with Lightning's Trainer, exact metrics, and its settings."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import stock_trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from torchmetrics import MetricCollection, SumMetric

from mnist_lit import CNN, DigitClassifier, MNISTDataModule
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.loading import Batch


def test_classifier_and_data_module_work_with_lightnings_trainer(data_dir: Path, tmp_path: Path) -> None:
    seed_everything(1, verbose=False)
    data = MNISTDataModule(data_dir=str(data_dir))
    classifier = DigitClassifier(channels=[4, 8], learning_rate=0.01)
    best = ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    trainer = stock_trainer(tmp_path, max_epochs=2, limit_train_batches=60, callbacks=[best])
    trainer.fit(classifier, data)
    [tested] = trainer.test(ckpt_path="best", datamodule=data)
    assert tested["test/accuracy"] > 0.9

    loaded = DigitClassifier.load_from_checkpoint(best.best_model_path)
    assert loaded.hparams == classifier.hparams
    assert (loaded.hparams["channels"], loaded.hparams["learning_rate"]) == ([4, 8], 0.01)
    assert isinstance(loaded.network, CNN)
    assert stock_trainer(tmp_path).test(loaded, data) == [tested]


def test_accuracy_and_loss_are_means_over_all_images(data_dir: Path, tmp_path: Path) -> None:
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


def test_each_evaluation_resets_the_metrics(data_dir: Path, tmp_path: Path) -> None:
    data = MNISTDataModule(data_dir=str(data_dir), batch_size=1_000)
    classifier, trainer = DigitClassifier(channels=[4]), stock_trainer(tmp_path)
    trainer.validate(classifier, data)
    trainer.validate(classifier, data)
    assert classifier.confusion.compute().sum() == 5_000
    trainer.test(classifier, data)
    assert classifier.confusion.compute().sum() == 10_000


def test_training_loss_is_the_mean_cross_entropy_of_a_batch(data_dir: Path, tmp_path: Path) -> None:
    seed_everything(1, verbose=False)
    data = MNISTDataModule(data_dir=str(data_dir))
    classifier = DigitClassifier(channels=[4])
    before = DigitClassifier(channels=[4])
    before.load_state_dict(classifier.state_dict())
    trainer = stock_trainer(tmp_path, max_steps=1, limit_val_batches=0, enable_checkpointing=False)
    trainer.fit(classifier, data)
    pixels, labels = next(iter(data.train_dataloader()))
    with torch.no_grad():
        expected = cross_entropy(before(pixels), labels)
    assert_close(trainer.callback_metrics["train/loss"], expected)


def test_predictions_are_probabilities(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=False)
    classifier = DigitClassifier(channels=[4])
    probabilities = classifier.predict_step((pixels[:7], labels[:7]))
    assert probabilities.shape == (7, 10)
    assert_close(probabilities.sum(dim=1), torch.ones(7))


@pytest.mark.parametrize("learning_rate", [0.0, -1.0, math.inf, math.nan])
def test_learning_rate_out_of_range_is_refused(learning_rate: float) -> None:
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        DigitClassifier(learning_rate=learning_rate)


@pytest.mark.parametrize("betas", [[0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, 0.9, 0.9]])
def test_betas_out_of_range_are_refused(betas: list[float]) -> None:
    with pytest.raises(ValueError, match="betas must be two numbers"):
        DigitClassifier(betas=betas)


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_label_smoothing_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing must be at least 0 and less than 1"):
        DigitClassifier(label_smoothing=value)


def test_label_smoothing_applies_to_the_training_loss_only(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=False)
    batch = pixels[:100], labels[:100]
    classifier = DigitClassifier(channels=[4], label_smoothing=0.5)
    logits = classifier(batch[0])
    classifier.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no Trainer to log to
    assert_close(classifier.training_step(batch), cross_entropy(logits, batch[1], label_smoothing=0.5))
    classifier.validation_step(batch)
    assert_close(classifier.loss.compute(), cross_entropy(logits, batch[1]).detach())


def test_validation_fits_the_temperature_and_test_computes_calibration_errors(data_dir: Path, tmp_path: Path) -> None:
    seed_everything(1, verbose=False)
    data, trainer = MNISTDataModule(data_dir=str(data_dir)), stock_trainer(tmp_path, max_epochs=1)
    classifier = DigitClassifier(channels=[4, 8], learning_rate=0.01)
    trainer.fit(classifier, data)
    pixels, labels = (torch.cat(tensors) for tensors in zip(*data.val_dataloader(), strict=True))
    classifier.eval()
    with torch.no_grad():
        logits = classifier(pixels)
    losses = [float(cross_entropy(logits / (classifier.temperature * factor), labels)) for factor in (0.98, 1, 1.02)]
    assert losses[1] == min(losses)

    trainer.test(classifier, data)
    pixels, labels = MNIST.read(data_dir, train=False)
    with torch.no_grad():
        logits = classifier(pixels)
    for scaled, metric in (
        (logits, classifier.uncalibrated_error),
        (logits / classifier.temperature, classifier.calibration_error),
    ):
        confidences, predictions = scaled.softmax(dim=1).max(dim=1)
        differences = confidences - (predictions == labels).float()
        bins = (confidences * 15).ceil().long()
        expected = sum(float(differences[bins == i].sum().abs()) for i in bins.unique()) / len(labels)
        assert float(metric.compute()) == pytest.approx(expected, abs=1e-5)


def test_loss_that_is_nan_is_not_ignored(data_dir: Path, tmp_path: Path) -> None:
    classifier = DigitClassifier(channels=[1])
    torch.nn.init.constant_(classifier.network.fc.weight, math.nan)
    trainer = stock_trainer(tmp_path, limit_val_batches=1)
    [validated] = trainer.validate(classifier, MNISTDataModule(data_dir=str(data_dir)), verbose=False)
    assert math.isnan(validated["val/loss"])


def test_metrics_of_training_are_not_reset_by_a_validation_but_all_others_are(data_dir: Path, tmp_path: Path) -> None:
    class WithMetrics(DigitClassifier):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.train_sum = SumMetric()
            self.sums = MetricCollection({"sum": SumMetric()})

        def training_step(self, batch: Batch) -> Tensor:
            self.train_sum.update(1)
            self.log("train/sum", self.train_sum, on_step=False, on_epoch=True)
            return super().training_step(batch)

        def validation_step(self, batch: Batch) -> Tensor:
            self.sums.update(1)
            return super().validation_step(batch)

    classifier = WithMetrics(channels=[1])
    stock = stock_trainer(
        tmp_path, max_epochs=2, limit_train_batches=4, limit_val_batches=3, enable_checkpointing=False
    )
    stock.fit(classifier, MNISTDataModule(data_dir=str(data_dir)))
    assert stock.callback_metrics["train/sum"] == 4
    assert classifier.sums.compute() == {"sum": 3}
