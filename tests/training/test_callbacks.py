"""Random numbers of an epoch, its end by a limit, and losses that are not finite."""

import math
import random
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers.fitting import epoch_and_step, fit
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from mnist_lit import DigitClassifier
from mnist_lit.runs.folders import Run
from mnist_lit.training.callbacks import DivergedError, FiniteLoss, SeedEpochs, TrainingTimer
from mnist_lit.training.checkpointing import EpochCheckpoint


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_all_generators_are_seeded_differently_for_each_epoch_and_process() -> None:
    def draw(seed: int, epoch: int, rank: int) -> tuple[float, float, float]:
        trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
        SeedEpochs(seed).on_train_epoch_start(cast("Trainer", trainer))
        return float(torch.rand(())), np.random.random(), random.random()  # noqa: NPY002  # as a user may do

    drawn = [draw(*numbers) for numbers in ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1))]
    assert draw(1, 0, 0) == drawn[0]
    assert all(len(set(numbers)) == 4 for numbers in zip(*drawn, strict=True))


class Clock(Callback):
    """Let a step take ten seconds, and count the validations."""

    def __init__(self, timer: TrainingTimer) -> None:
        self.timer, self.validations = timer, 0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.timer.load_state_dict({"time_elapsed": {"train": 10.0 * trainer.global_step}})

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self.validations += not trainer.sanity_checking


@pytest.mark.parametrize(
    ("limits", "seconds", "steps", "validations"), [({}, 295, 30, 1), ({}, 395, 40, 2), ({"max_steps": 33}, 999, 33, 1)]
)
def test_a_limit_cuts_an_epoch_without_validating_or_saving_it(
    run: Run, data_dir: Path, limits: dict[str, Any], seconds: int, steps: int, validations: int
) -> None:
    timer = TrainingTimer(timedelta(seconds=seconds), verbose=False)
    checkpoint, clock = EpochCheckpoint(run, validated=True), Clock(timer)
    trainer = fit(data_dir, run, clock, timer, checkpoint, max_epochs=9, **limits)
    assert (trainer.global_step, clock.validations, checkpoint.epochs) == (steps, validations, validations)
    assert epoch_and_step(run.checkpoints / "last.ckpt") == (validations - 1, 20 * validations)


class Diverging(DigitClassifier):
    """Add a value to the logits of all classes but the first one in a step: minus infinity is an infinite loss."""

    value: float

    def forward(self, pixels: Tensor) -> Tensor:
        logits = super().forward(pixels)
        return logits + torch.tensor([0.0] + [self.value] * 9) if self.global_step == 26 else logits


@pytest.mark.parametrize(("value", "loss"), [(math.nan, "nan"), (-math.inf, "inf")])
def test_a_loss_that_is_not_finite_stops_the_training_before_a_checkpoint(
    run: Run, data_dir: Path, value: float, loss: str
) -> None:
    checkpoint, classifier = EpochCheckpoint(run, validated=False), Diverging(channels=[4])
    classifier.value = value
    with pytest.raises(DivergedError, match=rf"^the loss is {loss} in epoch 2: try a lower --model.learning_rate"):
        fit(data_dir, run, FiniteLoss(), checkpoint, classifier=classifier, limit_val_batches=0)
    assert epoch_and_step(run.checkpoints / "last.ckpt") == (0, 20)
