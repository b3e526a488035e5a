"""The best and the last checkpoint are kept, and nothing that is not finite gets into them."""

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import stock_trainer
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run, new_run
from mnist_lit.system.signals import Stopped, StopRequest
from mnist_lit.training import callbacks
from mnist_lit.training.callbacks import DivergedError, FiniteLoss, Limits, SeedSteps
from mnist_lit.training.checkpointing import KeepBest, KeepLast


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return new_run("a")


class Watch(Callback):
    """Note what is there after each step and epoch."""

    def __init__(self, run: Run) -> None:
        self.last = run.checkpoints / "last.ckpt"
        self.steps: list[int] = []
        self.scores: list[float] = []
        self.chance: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.chance.append(torch.rand(()).item())
        if self.last.exists():
            self.steps.append(Checkpoint.read(self.last).content["global_step"])

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.scores.append(float(trainer.callback_metrics["val/accuracy"]))


def fit(data_dir: Path, run: Run, *added: Callback, **arguments: Any) -> DigitClassifier:
    settings = {"max_epochs": 2, "limit_train_batches": 20, "limit_val_batches": 5} | arguments
    classifier = DigitClassifier(channels=[4], batch_norm=settings.pop("batch_norm", False))
    data = MNISTDataModule(data_dir=str(data_dir))
    stock_trainer(run.folder, callbacks=list(added), **settings).fit(classifier, data)
    return classifier


def keep_last(run: Run, every: int = 200) -> KeepLast:
    return KeepLast(run, every, StopRequest())


def test_best_is_the_epoch_of_the_best_validation_accuracy_and_last_the_last(run: Run, data_dir: Path) -> None:
    best, watch = KeepBest(run, validated=True), Watch(run)
    fit(data_dir, run, best, keep_last(run), watch, max_epochs=3)
    assert Checkpoint.read(run.checkpoints / "best.ckpt").content["epoch"] == watch.scores.index(max(watch.scores))
    assert Checkpoint.read(run.checkpoints / "last.ckpt").content["epoch"] == 2
    assert float(best.best_model_score or 0) == pytest.approx(max(watch.scores))


def test_without_validation_best_is_last(run: Run, data_dir: Path) -> None:
    fit(data_dir, run, KeepBest(run, validated=False), keep_last(run), limit_val_batches=0)
    assert Checkpoint.read(run.checkpoints / "best.ckpt").content["epoch"] == 1


def test_the_best_score_is_remembered_where_a_run_has_been_moved(run: Run, data_dir: Path) -> None:
    best = KeepBest(run, validated=True)
    fit(data_dir, run, best, keep_last(run))
    moved = Run(run.folder.rename("moved"))
    again = KeepBest(moved, validated=True)
    again.load_state_dict(best.state_dict())
    assert again.best_model_score == best.best_model_score
    assert again.kth_value == best.kth_value
    here = str((moved.checkpoints / "best.ckpt").absolute())
    assert again.best_model_path == again.kth_best_model_path == here
    assert list(again.best_k_models) == [here]


def test_last_is_saved_every_few_steps_and_at_the_end_of_an_epoch(run: Run, data_dir: Path) -> None:
    watch = Watch(run)
    fit(data_dir, run, watch, keep_last(run, every=8))
    assert watch.steps == [8] * 8 + [16] * 4 + [20] * 8 + [28] * 8 + [36] * 4
    assert Checkpoint.read(run.checkpoints / "last.ckpt").content["global_step"] == 40


def test_last_is_never_saved_within_an_accumulated_step_and_after_a_validation_instead_of_before(
    run: Run, data_dir: Path
) -> None:
    watch = Watch(run)
    fit(data_dir, run, watch, keep_last(run, every=1), accumulate_grad_batches=3, val_check_interval=9, max_epochs=1)
    assert watch.steps == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3 + [5] * 3 + [6] * 2, "step 3 and 6 after a validation"


def step_of(path: Path) -> tuple[int, int]:
    """Return the epoch, from 0, and the step of a checkpoint."""
    content = Checkpoint.read(path).content
    return content["epoch"], content["global_step"]


def test_a_limit_of_steps_ends_an_epoch_without_counting_it(run: Run, data_dir: Path) -> None:
    last = keep_last(run)
    limited = fit(data_dir, run, Limits(), KeepBest(run, validated=True), last, max_steps=33)
    assert limited.trainer.current_epoch == 1
    assert "train/loss" in limited.trainer.callback_metrics, "of the first epoch"
    assert step_of(last.path) == (1, 33)
    assert step_of(run.checkpoints / "best.ckpt") == (0, 20)


def test_a_limit_of_time_ends_with_a_whole_step_and_counts_the_time_before(
    run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(10_000))
    monkeypatch.setattr(callbacks, "monotonic", lambda: next(seconds))
    limits, last = Limits(timedelta(seconds=100)), keep_last(run)
    limits.load_state_dict({"seconds": 95.0})
    fit(data_dir, run, limits, last, accumulate_grad_batches=3)
    assert step_of(last.path) == (0, 4), "the clock is read at the start and after each of the optimizer's steps"
    assert limits.seconds > 100
    assert limits.seconds == limits.state_dict()["seconds"]


@pytest.mark.parametrize("place", ["on_sanity_check_start", "on_train_batch_start", "on_validation_batch_start"])
def test_a_signal_is_obeyed_where_training_resumes_exactly(run: Run, data_dir: Path, place: str) -> None:
    last = keep_last(run)
    ask = Callback()
    setattr(ask, place, lambda *_: last.stop.handle(15, None) if last.stop.number is None else None)
    with pytest.raises(Stopped, match="terminated") as stopped:
        fit(data_dir, run, ask, last, num_sanity_val_steps=1 if place == "on_sanity_check_start" else 0)
    assert stopped.value.exit_code == 143
    if place == "on_train_batch_start":
        assert Checkpoint.read(last.path).content["global_step"] == 1, "the step in hand was finished"
    else:
        assert not last.path.exists(), "nothing had been trained since the last save"


def test_a_signal_that_comes_while_processes_agree_is_for_the_next_step(run: Run, data_dir: Path) -> None:
    """The others have not heard of it: a process that saved now would wait for them for ever."""
    last, agreed = keep_last(run), []

    class Disagree(Callback):
        def on_train_start(self, trainer: Trainer, *_: Any) -> None:
            def agree(decision: bool, *, all: bool) -> bool:  # noqa: A002, FBT001  # Lightning's
                assert not all
                agreed.append(decision)
                if len(agreed) == 3:
                    last.stop.handle(15, None)
                return decision

            trainer.strategy.reduce_boolean_decision = agree  # type: ignore[assignment, method-assign]

    with pytest.raises(Stopped):
        fit(data_dir, run, Disagree(), last)
    assert agreed == [False, False, False, True]
    assert Checkpoint.read(last.path).content["global_step"] == 4


def spoil(loss: float) -> Callback:
    """Return a callback that makes the loss of step 7 be `loss`."""

    class Spoil(Callback):
        def on_before_backward(self, trainer: Trainer, _module: Any, given: Tensor) -> None:
            if trainer.global_step == 6:
                given.data.fill_(loss)

    return Spoil()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_and_names_the_step(run: Run, data_dir: Path, loss: float) -> None:
    last = keep_last(run, every=3)
    with pytest.raises(ValueError, match=rf"the loss is {loss} in step 7: try a lower --model.learning_rate"):
        fit(data_dir, run, spoil(loss), FiniteLoss(), last)
    assert Checkpoint.read(last.path).content["global_step"] == 6


@pytest.mark.parametrize("name", ["network.fc.weight", "network.layer1.2.running_var"])
def test_weights_and_buffers_that_are_not_finite_are_never_saved(run: Run, data_dir: Path, name: str) -> None:
    class Spoil(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 8:
                trainer.lightning_module.state_dict()[name].fill_(math.nan)

    last = keep_last(run, every=4)
    with pytest.raises(DivergedError, match=rf"{name} is not finite after step 8"):
        fit(data_dir, run, Spoil(), last, batch_norm="running_var" in name)
    assert Checkpoint.read(last.path).content["global_step"] == 4


def test_seeding_leaves_nothing_behind_for_devices_that_are_not_there(run: Run, data_dir: Path) -> None:
    before = len(torch.cuda._queued_calls)  # noqa: SLF001  # what torch.manual_seed adds to
    fit(data_dir, run, SeedSteps(1), keep_last(run))
    assert len(torch.cuda._queued_calls) == before  # noqa: SLF001


class Disturb(Callback):
    """Use chance between the steps."""

    def on_validation_start(self, *_: Any) -> None:
        torch.rand(3)


def test_chance_in_a_step_depends_on_nothing_but_the_seed_and_the_step(run: Run, data_dir: Path) -> None:
    chances = []
    for seed, disturbed in ((1, False), (1, True), (2, False)):
        watch = Watch(run)
        other = Disturb() if disturbed else Callback()
        fit(data_dir, run, SeedSteps(seed), watch, other, keep_last(run))
        chances.append(watch.chance)
    assert chances[0] == chances[1]
    assert len(set(chances[0]) | set(chances[2])) == 80, "every step has its own"
