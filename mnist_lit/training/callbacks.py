"""Callbacks of every training: random numbers of an epoch, limits of steps and time, finite losses, signals."""

import random
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from mnist_lit.datasets.sampling import derive_seed
from mnist_lit.system.errors import UsageError
from mnist_lit.system.signals import raise_stopped, set_handler

__all__ = [
    "DivergedError",
    "FiniteLoss",
    "Monitors",
    "SeedEpochs",
    "SignalHandlers",
    "StepCurves",
    "StepLimit",
    "TrainingTimer",
]


class DivergedError(ValueError):
    """A loss or weights that are not finite: a resumed run would end in the same way."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: try a lower --model.learning_rate; saved checkpoints predate this and are safe")


class SeedEpochs(Callback):
    """Seed all random numbers before each epoch, so that a resumed run draws those of a run without interruption.

    Args:
        seed: seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Make dropout, augmentation and the like a function of the seed, the epoch and the process."""
        seed = derive_seed(self.seed, trainer.current_epoch, trainer.global_rank)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # for the user's own code
        torch.manual_seed(seed)


class StepLimit(Callback):
    """Keep `max_steps` from Lightning while it restores a run.

    With a limit of steps, it would end the epoch of the checkpoint a second time, and skip an epoch.
    """

    def on_fit_start(self, trainer: Trainer, _module: LightningModule) -> None:
        """Remove the limit before the loops are restored."""
        self.max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_train_start(self, trainer: Trainer, _module: LightningModule) -> None:
        """Set the limit again after they are restored."""
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps


class TrainingTimer(Timer):
    """Lightning's Timer, which at its limit ends the epoch as `max_steps` does.

    Lightning's own Timer would validate the cut epoch, which is not saved.
    """

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """End the training after this step if the time is over."""
        stopping = trainer.should_stop
        super().on_train_batch_end(trainer, *args, **kwargs)
        least_epochs, least_steps = trainer.min_epochs or 0, trainer.min_steps or 0
        may_stop = trainer.current_epoch >= least_epochs and trainer.global_step >= least_steps
        if trainer.should_stop and not stopping and may_stop:
            trainer.should_stop = False
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step


class FiniteLoss(Callback):
    """Stop before a checkpoint of an epoch whose loss is NaN or infinite."""

    def on_train_epoch_end(self, trainer: Trainer, _module: LightningModule) -> None:
        """Raise `DivergedError` in all processes: the loss is the mean over all batches of all processes."""
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None and not loss.isfinite():
            raise DivergedError(f"the loss is {float(loss)} in epoch {trainer.current_epoch + 1}")


class StepCurves(Callback):
    """Log the loss of steps as `train/loss_by_step`, at the steps at which Lightning logs the learning rate.

    It is that of the last batch of each step; in several processes, of the first process's part of the batch.

    Args:
        every: `log_every_n_steps` of the Trainer; None logs every step of an epoch of fewer than 200 batches, else
            100 to 199 batches of each epoch.
    """

    def __init__(self, every: int | None) -> None:
        self.every = every

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Set the interval. It does not depend on the number of epochs, so that a run that is extended keeps it."""
        self.step = trainer.global_step
        if self.every is None:
            trainer.log_every_n_steps = max(1, int(trainer.num_training_batches) // 100)  # type: ignore[attr-defined]

    def on_train_batch_end(self, trainer: Trainer, _module: LightningModule, outputs: Any, *_: Any) -> None:
        """Log the loss, if the batch has ended a step."""
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step > self.step and every and step % every == 0 and outputs and "loss" in outputs:
            loss = float(outputs["loss"]) * trainer.accumulate_grad_batches  # Lightning has divided it
            for logger in trainer.loggers:
                logger.log_metrics({"train/loss_by_step": loss}, step - 1)
        self.step = step


class Monitors(Callback):
    """Refuse a callback that watches a metric which is not logged, before the first epoch instead of after it."""

    def on_sanity_check_end(self, trainer: Trainer, _module: LightningModule) -> None:
        """Raise UsageError; the metrics of the training, `train/…`, are not known yet."""
        for callback in cast("list[Any]", trainer.callbacks):  # type: ignore[attr-defined]
            name = getattr(callback, "monitor", None)
            if name and not name.startswith("train") and name not in {"epoch", "step", *trainer.callback_metrics}:
                known = ", ".join(sorted([*trainer.callback_metrics, "train/loss", "train/accuracy"]))
                watching = f"--trainer.callbacks: {type(callback).__name__} watches {name}"
                raise UsageError(f"{watching}, which is not logged; choose one of {known}")


class SignalHandlers(Callback):
    """Handle SIGTERM in several processes as in one.

    Lightning's handler broadcasts it, and waits for ever if another process waits in an all-reduce.
    """

    def setup(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Set the program's own handlers, now that all processes have started."""
        if trainer.world_size > 1:
            set_handler(raise_stopped)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Set them again, after Lightning has set its own."""
        self.setup(trainer)

    on_train_start = on_sanity_check_start
    on_test_start = on_sanity_check_start
