"""The LightningModule: training with Lightning's Trainer, exact metrics, the learning rate's schedule, and settings."""

import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import stock_trainer
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from mnist_lit import CNN, DigitClassifier, MNISTDataModule
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.sampling import Batch
from mnist_lit.muon import Muon


class Recorder(DigitClassifier):
    """A classifier that keeps the batches of its training."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.batches: list[Batch] = []

    def training_step(self, batch: Batch) -> Tensor:
        """Keep the batch, and train on it."""
        self.batches.append(batch)
        return super().training_step(batch)


UNVALIDATED: dict[str, Any] = {"limit_val_batches": 0, "enable_checkpointing": False}


def test_classifier_and_data_module_work_with_lightnings_trainer(data_dir: Path, tmp_path: Path) -> None:
    seed_everything(1, verbose=False)
    data = MNISTDataModule(data_dir=str(data_dir))
    classifier = DigitClassifier(channels=[4, 8], learning_rate=0.01)
    best = ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    trainer = stock_trainer(tmp_path, max_epochs=1, limit_train_batches=100, callbacks=[best])
    trainer.fit(classifier, data)
    [tested] = trainer.test(ckpt_path="best", datamodule=data, weights_only=True)
    assert tested["test/accuracy"] > 0.9

    loaded = DigitClassifier.load_from_checkpoint(best.best_model_path, weights_only=True)
    assert loaded.hparams == classifier.hparams
    assert (loaded.hparams["channels"], loaded.hparams["learning_rate"]) == ([4, 8], 0.01)
    assert isinstance(loaded.network, CNN)
    assert stock_trainer(tmp_path).test(loaded, data) == [tested]


def test_training_metrics_are_those_of_the_whole_epoch_even_if_it_is_validated_within(
    data_dir: Path, tmp_path: Path
) -> None:
    seed_everything(1, verbose=False)
    classifier = Recorder(channels=[4], learning_rate=1e-12)  # the weights stay
    limits = {"limit_train_batches": 6, "limit_val_batches": 1, "val_check_interval": 2}
    trainer = stock_trainer(tmp_path, max_epochs=1, enable_checkpointing=False, **limits)
    trainer.fit(classifier, MNISTDataModule(data_dir=str(data_dir)))
    pixels, labels = (torch.cat(tensors) for tensors in zip(*classifier.batches, strict=True))
    with torch.no_grad():
        logits = classifier(pixels)
    assert len(labels) == 600
    assert_close(trainer.callback_metrics["train/loss"], cross_entropy(logits, labels))
    assert_close(trainer.callback_metrics["train/accuracy"], (logits.argmax(dim=1) == labels).float().mean())


def test_label_smoothing_applies_to_the_training_loss_only(data_dir: Path) -> None:
    pixels, labels = (tensor[:100] for tensor in MNIST.read(data_dir, train=False))
    classifier, logged = DigitClassifier(channels=[4], label_smoothing=0.5), {}
    classifier.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign]  # no Trainer
    logits = classifier(pixels)
    loss = classifier.training_step((pixels, labels))
    assert_close(loss, cross_entropy(logits, labels, label_smoothing=0.5))
    assert_close(classifier.validation_step((pixels, labels)), logits)
    assert_close(logged["val/loss"], cross_entropy(logits, labels))
    assert_close(logged["train/loss"], loss)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(({"learning_rate": rate}, "learning_rate must be positive") for rate in (0.0, -1.0, math.inf, math.nan)),
        *(({"betas": betas}, "betas must be two") for betas in ([0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, 0.9, 0.9])),
        *(({"weight_decay": value}, "weight_decay must be at least 0") for value in (-0.1, math.inf, math.nan)),
        *(({"label_smoothing": value}, "label_smoothing must be at least 0") for value in (-0.1, 1.0, math.nan)),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DigitClassifier(**settings)


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ({}, lambda weights: torch.optim.Adam(weights, lr=0.01)),
        ({"weight_decay": 0.1}, lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.1)),
        ({"betas": [0.8, 0.9]}, lambda weights: torch.optim.Adam(weights, lr=0.01, betas=(0.8, 0.9))),
        ({"optimizer": "sgd"}, lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9, nesterov=True)),
        ({"optimizer": "sgd", "betas": [0.0, 0.999]}, lambda weights: torch.optim.SGD(weights, lr=0.01)),
        (
            {"optimizer": "muon", "weight_decay": 0.1},
            lambda weights: Muon(weights, lr=0.01, betas=(0.9, 0.999), weight_decay=0.1),
        ),
    ],
    ids=["Adam", "AdamW", "betas", "SGD", "SGD without momentum", "Muon"],
)
def test_optimizer_is_that_of_its_name(
    data_dir: Path, tmp_path: Path, settings: dict[str, Any], reference: Callable[[Any], Optimizer]
) -> None:
    classifier = Recorder(channels=[4], learning_rate=0.01, **settings)
    expected = copy.deepcopy(classifier.network)
    trainer = stock_trainer(tmp_path, max_epochs=1, limit_train_batches=3, **UNVALIDATED)
    trainer.fit(classifier, MNISTDataModule(data_dir=str(data_dir)))
    optimizer = reference(expected.parameters())
    for pixels, labels in classifier.batches:
        optimizer.zero_grad()
        cross_entropy(expected(pixels), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for name, weight in classifier.network.state_dict().items():
        assert_close(weight, expected.state_dict()[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({"max_epochs": 3, "limit_train_batches": 0.5}, 9),
        ({"max_epochs": 2, "accumulate_grad_batches": 2}, 8),
        ({"max_epochs": 9, "max_steps": 5}, 5),
        ({"max_epochs": -1, "max_steps": 10}, 10),
    ],
)
def test_one_cycle_rises_from_a_25th_and_decays_to_0_at_the_last_step(
    data_dir: Path, tmp_path: Path, arguments: dict[str, Any], steps: int
) -> None:
    rates: list[float] = []

    class Record(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == len(rates):
                rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = stock_trainer(tmp_path, callbacks=[Record()], **UNVALIDATED, **arguments)
    data = MNISTDataModule(batch_size=100, val_size=59_300, data_dir=str(data_dir))
    trainer.fit(DigitClassifier(channels=[1], schedule="one_cycle", learning_rate=0.1), data)
    assert len(rates) == steps == trainer.global_step
    assert rates[0] == pytest.approx(0.1 / 25)
    assert max(rates) > 0.08
    assert rates[-1] < 0.1 / 10_000
    warm_up = rates[: rates.index(max(rates))]
    assert warm_up == sorted(warm_up)


def test_triangular_rises_and_falls_linearly(data_dir: Path, tmp_path: Path) -> None:
    rates: list[float] = []

    class Record(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = stock_trainer(tmp_path, callbacks=[Record()], max_steps=20, **UNVALIDATED)
    trainer.fit(
        DigitClassifier(channels=[1], schedule="triangular", learning_rate=0.1),
        MNISTDataModule(batch_size=100, val_size=0, data_dir=str(data_dir)),
    )
    peak = rates.index(max(rates))
    assert (rates[0], max(rates), rates[-1]) == pytest.approx((0.1 / 25, 0.1, 0), abs=1e-5)
    for part in (rates[: peak + 1], rates[peak:]):
        changes = torch.tensor(part).diff()
        assert_close(changes, changes.mean().expand_as(changes), rtol=0.01, atol=1e-5)


def test_one_cycle_needs_a_number_of_steps(data_dir: Path, tmp_path: Path) -> None:
    trainer = stock_trainer(tmp_path, max_epochs=-1, **UNVALIDATED)
    with pytest.raises(ValueError, match="schedule one_cycle needs an end"):
        trainer.fit(DigitClassifier(channels=[1], schedule="one_cycle"), MNISTDataModule(data_dir=str(data_dir)))


@pytest.mark.parametrize(
    ("scale", "shift", "warned"), [(1, 0, True), (1 / 0.3081, -0.1307 / 0.3081, True), (2, -1, True), (255, 0, False)]
)
def test_pixels_that_were_scaled_are_warned_of(scale: float, shift: float, warned: bool, tmp_path: Path) -> None:  # noqa: FBT001
    loader = DataLoader(TensorDataset(scale * torch.rand(10, 1, 28, 28) + shift, torch.arange(10)), batch_size=5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        stock_trainer(tmp_path).test(DigitClassifier(channels=[4]), loader, verbose=False)
    assert any("expects pixels 0-255" in str(warning.message) for warning in caught) == warned


def test_pictures_without_labels_are_predicted(tmp_path: Path) -> None:
    pixels = torch.randint(256, (10, 1, 28, 28), dtype=torch.uint8)
    classifier, trainer = DigitClassifier(channels=[4]), stock_trainer(tmp_path)
    expected = trainer.predict(classifier, DataLoader(TensorDataset(pixels, torch.zeros(10)), batch_size=5))
    for images in (TensorDataset(pixels), pixels):
        found = trainer.predict(classifier, DataLoader(images, batch_size=5))  # type: ignore[arg-type]
        assert all(torch.equal(one, other) for one, other in zip(expected or [], found or [], strict=True))
