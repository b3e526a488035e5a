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
from conftest import stock_trainer
from helpers.fitting import epoch_and_step, fit
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.runs.folders import Run
from mnist_lit.training.callbacks import DivergedError, FiniteLoss, SeedEpochs, StepCurves, TrainingTimer
from mnist_lit.training.checkpointing import EpochCheckpoint

READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}  # noqa: SLF001


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


class CountReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the reads of numbers from tensors, for which a GPU must wait, but of Adam's steps, which are on the CPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads = 0
        self.steps: set[int] = set()

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS and args[0].data_ptr() not in self.steps:
            self.reads += 1
        return func(*args, **(kwargs or {}))


class CountReadsOfSteps(Callback):
    """Count them from the second step, since Adam makes its state in the first, to step 31."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.counting = CountReads(), False
        for name in ("tolist", "numpy", "cpu"):  # which read without an operation
            monkeypatch.setattr(Tensor, name, self._counted(getattr(Tensor, name)))

    def _counted(self, read: Any) -> Any:
        def counted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.count.reads += self.counting
            return read(tensor, *args, **kwargs)

        return counted

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 1:
            states = trainer.optimizers[0].state.values()
            self.count.steps = {state["step"].data_ptr() for state in states}
            self.count.__enter__()  # type: ignore[no-untyped-call]
            self.counting = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 31:
            self.counting = False
            self.count.__exit__(None, None, None)  # type: ignore[no-untyped-call]


def test_a_step_reads_nothing_from_the_device(run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = CountReadsOfSteps(monkeypatch)
    limits = {"max_epochs": 1, "limit_train_batches": 32, "limit_val_batches": 0, "enable_checkpointing": False}
    own = [TrainingTimer(verbose=False), FiniteLoss(), SeedEpochs(1), StepCurves(every=50), counter]
    trainer = stock_trainer(run.folder, callbacks=own, **limits)
    data = MNISTDataModule(data_dir=str(data_dir), rotation=10, elastic=1, crop=2, flip=True)
    trainer.fit(DigitClassifier(channels=[4]), data)
    assert trainer.global_step == 32
    assert counter.count.reads == 0
