"""The best and the last checkpoint: when they are saved, and signals that stop the training."""

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest
from fitting import epoch_and_step, fit, keep_last
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run
from mnist_lit.system.signals import Stopped
from mnist_lit.training.callbacks import DivergedError
from mnist_lit.training.checkpointing import DurableCheckpointIO, KeepBest


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


class Record(Callback):
    """Record the step of `last.ckpt` after each step, and the validation accuracy of each epoch."""

    def __init__(self, run: Run) -> None:
        self.last = run.checkpoints / "last.ckpt"
        self.saved_steps: list[int] = []
        self.accuracies: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        if self.last.exists():
            self.saved_steps.append(Checkpoint.read(self.last).content["global_step"])

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.accuracies.append(float(trainer.callback_metrics["val/accuracy"]))


class Forget(Callback):
    """Set the weights to 0 after each step of the third epoch, which is worse then."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.current_epoch == 2:
            for parameter in pl_module.parameters():
                parameter.data.zero_()


def test_best_is_the_epoch_of_the_highest_accuracy_and_last_the_last_epoch(run: Run, data_dir: Path) -> None:
    best, record = KeepBest(run, validated=True), Record(run)
    fit(data_dir, run, best, keep_last(run), record, max_epochs=3)
    assert epoch_and_step(best.path)[0] == record.accuracies.index(max(record.accuracies))
    assert epoch_and_step(run.checkpoints / "last.ckpt") == (2, 60)
    assert float(best.best_model_score or 0) == pytest.approx(max(record.accuracies))


def test_best_is_the_last_epoch_without_validation(run: Run, data_dir: Path) -> None:
    fit(data_dir, run, best := KeepBest(run, validated=False), keep_last(run), limit_val_batches=0)
    assert epoch_and_step(best.path) == (1, 40)


def test_best_is_the_last_validated_epoch_if_asked_for(run: Run, data_dir: Path) -> None:
    best, record = KeepBest(run, validated=True, last_epoch=True), Record(run)
    fit(data_dir, run, best, Forget(), record, max_epochs=3)
    assert record.accuracies[2] < max(record.accuracies)
    assert epoch_and_step(best.path) == (2, 60)
    assert float(best.best_model_score or 0) == pytest.approx(record.accuracies[2])


def test_best_score_is_restored_in_a_moved_run(run: Run, data_dir: Path, tmp_path: Path) -> None:
    best = KeepBest(run, validated=True)
    fit(data_dir, run, best, keep_last(run))
    moved = Run(run.folder.rename(tmp_path / "moved"))
    restored = KeepBest(moved, validated=True)
    restored.load_state_dict(best.state_dict())
    assert restored.best_model_score == best.best_model_score
    assert restored.kth_value == best.kth_value
    path = str(moved.checkpoints / "best.ckpt")
    assert restored.best_model_path == restored.kth_best_model_path == path
    assert list(restored.best_k_models) == [path]


def test_last_is_saved_every_n_steps_and_at_the_end_of_an_epoch(run: Run, data_dir: Path) -> None:
    record, last = Record(run), keep_last(run, every_n_steps=8)
    fit(data_dir, run, record, last)
    assert record.saved_steps == [8] * 8 + [16] * 4 + [20] * 8 + [28] * 8 + [36] * 4
    assert epoch_and_step(last.path) == (1, 40)


def test_last_is_saved_after_an_optimizer_step_and_its_validation(run: Run, data_dir: Path) -> None:
    record, last = Record(run), keep_last(run, every_n_steps=1)
    fit(data_dir, run, record, last, accumulate_grad_batches=3, val_check_interval=9, max_epochs=1)
    assert record.saved_steps == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3 + [5] * 3 + [6] * 2, "3 and 6 after validation"


@pytest.mark.parametrize("hook", ["on_sanity_check_start", "on_train_batch_start", "on_validation_batch_start"])
def test_signal_stops_training_at_a_checkpoint(run: Run, data_dir: Path, hook: str) -> None:
    last = keep_last(run)
    terminate = Callback()
    setattr(terminate, hook, lambda *_: last.stop.handle(15, None) if last.stop.number is None else None)
    with pytest.raises(Stopped, match="terminated") as stopped:
        fit(data_dir, run, terminate, last, num_sanity_val_steps=1 if hook == "on_sanity_check_start" else 0)
    assert stopped.value.exit_code == 143
    if hook == "on_train_batch_start":
        assert epoch_and_step(last.path) == (0, 1), "after the current step"
    else:
        assert not last.path.exists(), "no step since the last checkpoint"


def test_signal_during_the_collective_decision_counts_for_the_next_step(run: Run, data_dir: Path) -> None:
    """A process that saved in this step would wait forever for the others."""
    last, decisions = keep_last(run), []

    class SignalInDecision(Callback):
        def on_train_start(self, trainer: Trainer, *_: Any) -> None:
            def decide(decision: bool, *, all: bool) -> bool:  # noqa: A002, FBT001  # Lightning's
                assert not all
                decisions.append(decision)
                if len(decisions) == 3:
                    last.stop.handle(15, None)
                return decision

            trainer.strategy.reduce_boolean_decision = decide  # type: ignore[assignment, method-assign]

    with pytest.raises(Stopped):
        fit(data_dir, run, SignalInDecision(), last)
    assert decisions == [False, False, False, True, False], "the last one: whether weights are not finite"
    assert epoch_and_step(last.path) == (0, 4)


@pytest.mark.parametrize("name", ["network.fc.weight", "network.layer1.2.running_var"])
def test_weights_and_buffers_that_are_not_finite_are_not_saved(run: Run, data_dir: Path, name: str) -> None:
    class SetNaN(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 8:
                trainer.lightning_module.state_dict()[name].fill_(math.nan)

    last = keep_last(run, every_n_steps=4)
    with pytest.raises(DivergedError, match=rf"{name} is not finite after step 8"):
        fit(data_dir, run, SetNaN(), last, batch_norm="running_var" in name)
    assert epoch_and_step(last.path) == (0, 4)


def test_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io = DurableCheckpointIO()
    io.save_checkpoint({"a": 1}, path := tmp_path / "other.ckpt")
    before = path.read_bytes()

    def fsync(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"No space left on device: .*other.ckpt"):
        io.save_checkpoint({"a": 2}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
