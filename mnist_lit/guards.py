"""What keeps a run's work: the best and the last checkpoint, and the reasons to stop before they are spoilt."""

import signal
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from mnist_lit.files import write_atomically
from mnist_lit.order import mixed
from mnist_lit.runs import Run
from mnist_lit.signals import StopRequest, set_handler, stop_now

__all__ = ["Diverged", "FiniteLoss", "KeepBest", "KeepLast", "Limits", "SeedSteps"]

ADVICE = "try a lower --model.learning_rate; the checkpoints are from before"


class Diverged(ValueError):  # noqa: N818  # the field's word
    """A loss or weights that are not finite: a resumed run would come to the same."""


def _within_step(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether the optimizer still waits for batches whose gradients are accumulated."""
    return not trainer.is_last_batch and bool((batch_idx + 1) % trainer.accumulate_grad_batches)


class Limits(Callback):
    """Measure the time of training, and end it after `max_steps` or `max_time`, with a whole optimizer step.

    Lightning's own limits count an epoch that they cut as finished, and a resumed run would begin the next one. Here an
    epoch that is cut stays unfinished. There is no validation at the cut: a run without the limit has none there.

    Args:
        max_time: the longest training, all its resumptions together: a `timedelta`, its arguments, or `DD:HH:MM:SS`.

    Raises:
        MisconfigurationException: if `max_time` is no duration.
    """

    def __init__(self, max_time: str | timedelta | dict[str, int] | None = None) -> None:
        self.max_time = Timer(max_time).time_remaining()
        self.max_steps = -1
        self.start: float | None = None
        self.before = 0.0

    @property
    def seconds(self) -> float:
        """The time of training so far, with its validations."""
        return self.before if self.start is None else self.before + monotonic() - self.start

    def on_fit_start(self, trainer: Trainer, *_: Any) -> None:
        """Take the limit of steps over from the Trainer, before its loops are restored by it."""
        self.max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Start the clock. A run may be resumed at its limit."""
        self.start = monotonic()
        self._check(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, _module: LightningModule, _outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        """End the training at a limit, after the optimizer's step."""
        if not _within_step(trainer, batch_idx):
            self._check(trainer)

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop the clock, and count what was trained.

        Lightning counts an epoch that was cut, and a step less where a run resumed at its limit has none left to train.
        """
        self.before, self.start = self.seconds, None
        batches = trainer.fit_loop.total_batch_idx + 1
        trainer.fit_loop.epoch_progress.current.completed = int(batches // trainer.num_training_batches)
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step  # noqa: SLF001  # where the test is logged

    def state_dict(self) -> dict[str, Any]:
        """Return the time so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the time of a checkpoint."""
        self.before = state_dict["seconds"]

    def _check(self, trainer: Trainer) -> None:
        reached = 0 <= self.max_steps <= trainer.global_step
        if self.max_time is not None:  # all processes end together
            late = self.seconds >= self.max_time
            reached = trainer.strategy.reduce_boolean_decision(reached or late, all=False)
        if reached:
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step


class KeepBest(ModelCheckpoint):
    """Keep `best.ckpt`: the best validation accuracy or, without validation, the last step.

    Args:
        run: whose checkpoint it is.
        validated: whether there is a validation.
    """

    def __init__(self, run: Run, *, validated: bool) -> None:
        super().__init__(
            run.checkpoints,
            filename="best",
            monitor="val/accuracy" if validated else None,
            mode="max",
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless a limit has cut the epoch before its validation."""
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        """Take the last checkpoint where training ended before there was a validation to select one."""
        best, last = (Path(self.dirpath or "") / f"{name}.ckpt" for name in ("best", "last"))
        if self.best_model_score is None and last.is_file():
            if trainer.is_global_zero:
                write_atomically(best, last.read_bytes())
            trainer.strategy.barrier()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best score so far, also where the run's folder has been moved since."""
        here = str(Path(self.dirpath or "") / "best.ckpt")
        best = dict(zip([here], state_dict["best_k_models"].values(), strict=False))  # one, or none yet
        paths = {name: here for name in ("best_model_path", "kth_best_model_path") if state_dict[name]}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})
        self.current_score = state_dict["current_score"]


class KeepLast(Checkpoint):
    """Keep `last.ckpt`, from which training resumes exactly, and stop there when a signal asks for it.

    It is written at the end of every epoch, every few steps, and before a signal is obeyed.

    Args:
        run: whose checkpoint it is.
        every_n_steps: optimizer steps between two saves within an epoch.
        stop: what signals have asked for.
    """

    def __init__(self, run: Run, every_n_steps: int, stop: StopRequest) -> None:
        self.path, self.every_n_steps, self.stop = run.checkpoints / "last.ckpt", every_n_steps, stop
        self.saved = 0
        self.stopped = False

    def on_sanity_check_start(self, *_: Any) -> None:
        """Take SIGTERM back from Lightning, which would stop between two batches without a checkpoint."""
        set_handler(self.stop.note)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Do the same where there is no sanity check, and train no further where a callback had ended the training."""
        self.on_sanity_check_start()
        trainer.should_stop = trainer.should_stop or self.stopped

    def on_test_start(self, *_: Any) -> None:
        """Take SIGTERM back here too: the test ends at once, and is repeated when the run is resumed."""
        set_handler(stop_now)

    def on_load_checkpoint(self, _trainer: Trainer, _module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember whether a callback, as EarlyStopping, had ended the training."""
        self.stopped = checkpoint.get("should_stop", False)

    def on_train_batch_end(
        self, trainer: Trainer, _module: LightningModule, _outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time. Where a validation follows, Lightning would resume after it: save then."""
        if not trainer.is_last_batch and not _within_step(trainer, batch_idx) and not _validation_is_due(trainer):
            self._save_if_due(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop without saving: training resumes from what was saved last. Several processes end the epoch together."""
        if trainer.world_size == 1:
            self.stop.check()

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        """Save if it is time, after a validation within an epoch and the best checkpoint."""
        batch_idx = trainer.fit_loop.batch_idx
        if not trainer.sanity_checking and not trainer.is_last_batch and not _within_step(trainer, batch_idx):
            self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save, after validation and the best checkpoint. An epoch that was cut has been saved as it is."""
        if trainer.is_last_batch:
            self._save(trainer)
            self.stop_if_asked(trainer)

    def on_save_checkpoint(self, trainer: Trainer, _module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what is not finite out of every checkpoint, and let the curves reach as far as the checkpoint does."""
        for state in (checkpoint["state_dict"], checkpoint.get("current_model_state", {})):
            for name, value in state.items():
                if not value.isfinite().all():
                    raise Diverged(f"{name} is not finite after step {trainer.global_step}: {ADVICE}")
        checkpoint["should_stop"] = trainer.should_stop
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()

    def stop_if_asked(self, trainer: Trainer) -> None:
        """Raise `Stopped` in all processes if a signal has come to one of them."""
        if self._agreed(trainer):
            self.stop.check()

    def _agreed(self, trainer: Trainer) -> bool:
        """Return whether a signal has come to any process, so that all stop after the same step.

        One that comes while they agree is for the next step: a process that saved alone would wait for the others.
        """
        stopping = trainer.strategy.reduce_boolean_decision(self.stop.number is not None, all=False)
        if stopping and self.stop.number is None:
            self.stop.number = signal.SIGTERM
        return stopping

    def _save_if_due(self, trainer: Trainer) -> None:
        """Save every few steps, where training ends, and before a signal is obeyed."""
        stopping = self._agreed(trainer)
        ending = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if stopping or ending or trainer.global_step >= self.saved + self.every_n_steps:
            self._save(trainer)
        if stopping:
            self.stop.check()

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.saved = trainer.global_step


def _validation_is_due(trainer: Trainer) -> bool:
    """Return whether a validation follows the batch in hand, within the epoch, as Lightning decides it."""
    if not trainer.enable_validation or not isinstance(trainer.val_check_batch, int):  # by time, it may be infinite
        return False
    every = trainer.check_val_every_n_epoch
    batches = trainer.fit_loop.total_batch_idx if every is None else trainer.fit_loop.batch_idx
    return (every is None or (trainer.current_epoch + 1) % every == 0) and (batches + 1) % trainer.val_check_batch == 0


class FiniteLoss(Callback):
    """Stop before a loss that is NaN or infinite spoils the weights."""

    def on_before_backward(self, trainer: Trainer, _module: LightningModule, loss: Tensor) -> None:
        """Raise `Diverged`, naming the step."""
        if not trainer.strategy.reduce_boolean_decision(bool(loss.isfinite())):  # in all processes, or they would wait
            raise Diverged(f"the loss is {loss.item()} in step {trainer.global_step + 1}: {ADVICE}")


class SeedSteps(Callback):
    """Seed torch for each batch anew, so that what is random in it does not depend on how the run got there.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Make dropout, augmentation and the like a function of the seed and the batch."""
        seed = mixed(self.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank)
        # Not torch.manual_seed: for devices not in use it keeps every call, with a traceback, at a millisecond each.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(seed)
