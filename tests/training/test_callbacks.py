"""Limits of steps and time, losses that are not finite, and random numbers in training steps."""

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import epoch_and_step, fit, keep_last
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from mnist_lit.runs.folders import Run
from mnist_lit.training import callbacks
from mnist_lit.training.callbacks import FiniteLoss, Limits, SeedSteps
from mnist_lit.training.checkpointing import KeepBest


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_max_steps_ends_an_epoch_that_is_not_counted(run: Run, data_dir: Path) -> None:
    last = keep_last(run)
    classifier = fit(data_dir, run, Limits(), KeepBest(run, validated=True), last, max_steps=33)
    assert classifier.trainer.current_epoch == 1
    assert "train/loss" in classifier.trainer.callback_metrics, "of the first epoch"
    assert epoch_and_step(last.path) == (1, 33)
    assert epoch_and_step(run.checkpoints / "best.ckpt") == (0, 20)


def test_max_time_includes_earlier_time_and_ends_after_an_optimizer_step(
    run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(10_000))
    monkeypatch.setattr(callbacks, "monotonic", lambda: next(seconds))
    limits, last = Limits(timedelta(seconds=100)), keep_last(run)
    limits.load_state_dict({"seconds": 95.0})
    fit(data_dir, run, limits, last, accumulate_grad_batches=3)
    assert epoch_and_step(last.path) == (0, 4), "the clock is read at the start and after each optimizer step"
    assert limits.seconds > 100
    assert limits.seconds == limits.state_dict()["seconds"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_training_and_names_the_step(run: Run, data_dir: Path, value: float) -> None:
    class SetLoss(Callback):
        def on_before_backward(self, trainer: Trainer, _module: Any, loss: Tensor) -> None:
            if trainer.global_step == 6:
                loss.data.fill_(value)

    last = keep_last(run, every_n_steps=3)
    with pytest.raises(ValueError, match=rf"the loss is {value} in step 7: try a lower --model.learning_rate"):
        fit(data_dir, run, SetLoss(), FiniteLoss(), last)
    assert epoch_and_step(last.path) == (0, 6)


class DrawNumbers(Callback):
    """Draw a random number after each step, and before each validation if `disturb`."""

    def __init__(self, *, disturb: bool = False) -> None:
        self.numbers: list[float] = []
        self.disturb = disturb

    def on_train_batch_end(self, *_: Any) -> None:
        self.numbers.append(torch.rand(()).item())

    def on_validation_start(self, *_: Any) -> None:
        if self.disturb:
            torch.rand(3)


def test_random_numbers_in_a_step_depend_on_seed_and_step_only(run: Run, data_dir: Path) -> None:
    drawn = []
    for seed, disturb in ((1, False), (1, True), (2, False)):
        draw = DrawNumbers(disturb=disturb)
        fit(data_dir, run, SeedSteps(seed), draw, keep_last(run))
        drawn.append(draw.numbers)
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0]) | set(drawn[2])) == 80, "each step has its own"


def test_seeding_queues_no_calls_for_devices_not_in_use(run: Run, data_dir: Path) -> None:
    before = len(torch.cuda._queued_calls)  # noqa: SLF001  # torch.manual_seed adds to it
    fit(data_dir, run, SeedSteps(1), keep_last(run))
    assert len(torch.cuda._queued_calls) == before  # noqa: SLF001


class Clock(Callback):
    """A clock on which a batch takes two seconds; records the time left after each batch."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.now = limits, 0.0
        self.left: list[float | None] = []

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        assert self.limits.seconds_left(trainer) is None, "nothing is known yet"

    def on_train_batch_start(self, *_: Any) -> None:
        self.now += 2

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.left.append(self.limits.seconds_left(trainer))


@pytest.mark.parametrize(
    ("max_time", "settings", "total"),
    [
        (None, {}, 80),
        (None, {"max_steps": 33}, 66),
        (None, {"max_epochs": -1, "max_steps": 10, "accumulate_grad_batches": 2}, 40),
        (timedelta(seconds=50), {}, 50),
        (timedelta(seconds=50), {"max_epochs": -1}, 50),
    ],
)
def test_time_left_is_that_of_the_remaining_batches_or_of_the_limit(
    run: Run,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    max_time: timedelta | None,
    settings: dict[str, Any],
    total: int,
) -> None:
    clock = Clock(limits := Limits(max_time))
    monkeypatch.setattr(callbacks, "monotonic", lambda: clock.now)
    fit(data_dir, run, limits, clock, limit_val_batches=0, **settings)
    assert clock.left == pytest.approx(list(range(total - 2, -1, -2)))
