"""Limits of steps and time, losses that are not finite, and random numbers in training steps."""

import math
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from conftest import stock_trainer
from fitting import epoch_and_step, fit, keep_last
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.runs.folders import Run
from mnist_lit.training import callbacks
from mnist_lit.training.callbacks import DivergedError, FiniteLoss, Limits, SeedSteps, any_process
from mnist_lit.training.checkpointing import KeepBest

READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}  # noqa: SLF001


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


@pytest.mark.parametrize("checkpointing", [True, False])
def test_loss_that_is_not_finite_in_the_last_steps_is_found(run: Run, data_dir: Path, *, checkpointing: bool) -> None:
    class SetLoss(Callback):
        def on_before_backward(self, trainer: Trainer, _module: Any, loss: Tensor) -> None:
            if trainer.global_step == 38:
                loss.data.fill_(math.nan)

    more = [keep_last(run)] if checkpointing else []
    with pytest.raises(DivergedError, match="the loss is nan in step 39"):
        fit(data_dir, run, SetLoss(), FiniteLoss(), *more, limit_val_batches=0)


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
    """Count them from the second step, since Adam makes its state in the first, to step 151."""

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
        if trainer.global_step == 151:
            self.counting = False
            self.count.__exit__(None, None, None)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("data", [{}, {"rotation": 10.0, "elastic": 1.0, "crop": 2, "flip": True}], ids=str)
def test_a_step_reads_nothing_from_the_device_but_losses_once_in_50(
    run: Run, data_dir: Path, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CountReadsOfSteps(monkeypatch)
    limits = {"max_epochs": 1, "limit_train_batches": 152, "limit_val_batches": 0, "enable_progress_bar": False}
    trainer = stock_trainer(run.folder, callbacks=[FiniteLoss(), SeedSteps(1), Limits(), counter], **limits)
    trainer.fit(DigitClassifier(channels=[4]), MNISTDataModule(data_dir=str(data_dir), **data))
    assert trainer.global_step == 152
    assert counter.count.reads == 150 / 50


def test_several_processes_agree_in_every_tenth_step_only() -> None:
    asked = []

    def reduce(decision: bool, *, all: bool) -> bool:  # noqa: A002, FBT001  # Lightning's name
        assert not all
        asked.append(decision)
        return True

    strategy = SimpleNamespace(reduce_boolean_decision=reduce)
    answers = [
        any_process(cast("Trainer", SimpleNamespace(world_size=2, global_step=step, strategy=strategy)), decision=False)
        for step in range(1, 31)
    ]
    assert [step for step, answer in enumerate(answers, start=1) if answer] == [10, 20, 30]
    assert len(asked) == 3
    alone = SimpleNamespace(world_size=1, global_step=7, strategy=strategy)
    assert any_process(cast("Trainer", alone), decision=True), "one process decides in each step"


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
