"""The Trainer of a run: its loggers, callbacks and plugins."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelPruning,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
    TQDMProgressBar,
)
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from mnist_lit.classifier import DigitClassifier
from mnist_lit.data import MNISTDataModule
from mnist_lit.runs.folders import Run
from mnist_lit.runs.provenance import provenance
from mnist_lit.system.errors import UsageError
from mnist_lit.system.signals import block_signals
from mnist_lit.training.callbacks import (
    FiniteLoss,
    Monitors,
    SeedEpochs,
    SignalHandlers,
    StepCurves,
    StepLimit,
    TrainingTimer,
)
from mnist_lit.training.checkpointing import DurableCheckpointIO, EpochCheckpoint
from mnist_lit.training.evaluation import Calibration, Outputs
from mnist_lit.training.loggers import build_loggers
from mnist_lit.training.progress import EpochLines
from mnist_lit.training.tensorboard import TensorBoardCallback

__all__ = ["Training", "build_trainer", "build_training", "early_end", "fit_results"]

REFUSED_CALLBACKS: dict[type[Callback], str] = {
    LearningRateFinder: "it is broken since Lightning 2.5.3 (issue 21141), and its runs cannot be resumed: use search",
    BatchSizeFinder: "the batch size is part of the recipe: set --data.batch_size",
    GradientAccumulationScheduler: "the learning rate schedule ignores it: set --trainer.accumulate_grad_batches",
    ModelPruning: "it fails for weights in the memory format channels_last: prune the trained network",
    OnExceptionCheckpoint: "a new run would resume from the file that it saves: use fit --ckpt_path last",
    StochasticWeightAveraging: "it averages after the last checkpoint: use WeightAveraging or EMAWeightAveraging",
}
MINIMUM = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0, "val_check_interval": 0}


@dataclass(frozen=True)
class Training:
    """A Trainer, and those of its callbacks that know the results."""

    trainer: Trainer
    timer: TrainingTimer
    checkpoint: EpochCheckpoint
    outputs: Outputs
    made_by: dict[str, str | int | None]


def build_training(
    config: Namespace,
    settings: Any,
    run: Run,
    classifier: DigitClassifier,
    data: MNISTDataModule,
    callbacks: Sequence[Callback] = (),
    purge_step: int | None = None,
) -> Training:
    """Return the Trainer that trains a run, with callbacks besides those of every run and the user's.

    `settings` are the user's arguments of the Trainer, with instances of its callbacks and partial loggers. In a run
    that was interrupted, the curves are replaced from `purge_step` on.

    Raises:
        UsageError: if an argument is refused.
    """
    given = dict(settings)
    if data.val_size == 0:
        given["limit_val_batches"] = 0  # Lightning would warn of an empty loader
    if (max_time := given.pop("max_time")) is not None and given["max_epochs"] is None:
        given["max_epochs"] = -1  # Lightning's default is 1,000
    try:
        timer = TrainingTimer(max_time, verbose=False)
    except (MisconfigurationException, TypeError) as error:
        raise UsageError(f"--trainer.max_time: {error}") from error
    outputs = Outputs()
    last_epoch = config.select == "last_epoch"
    checkpoint = EpochCheckpoint(run, validated=given["limit_val_batches"] != 0, last_epoch=last_epoch)
    compared = {"seed": config.seed, "max_epochs": config.trainer.max_epochs, **classifier.hparams, **data.hparams}
    rate = LearningRateMonitor("epoch" if classifier.hparams["schedule"] == "constant" else "step")
    own: list[Callback] = [
        timer,
        SeedEpochs(config.seed),
        FiniteLoss(),
        Monitors(),
        SignalHandlers(),
        StepLimit(),
        StepCurves(given["log_every_n_steps"]),
        outputs,
        Calibration(outputs),
        TensorBoardCallback(outputs, data, compared, run.config),
        checkpoint,
        *callbacks,
    ]
    given["default_root_dir"] = run.folder
    given["logger"] = build_loggers(given["logger"], run, purge_step)
    given["plugins"] = [DurableCheckpointIO(), *_as_list(given["plugins"])]
    own += [rate] if given["logger"] else []
    trainer = build_trainer(given, own, timer)
    if data.batch_size > (most := data.dataset.train_size - data.val_size):
        raise UsageError(f"--data.batch_size: {data.batch_size} is more than the {most:,} images to train on")
    if data.batch_size % trainer.world_size:
        raise UsageError(f"--data.batch_size: {data.batch_size} cannot be divided among {trainer.world_size} processes")
    if trainer.world_size > 1:
        data.prepare_data()  # now, since a download takes time
        block_signals()  # until all processes have started, see `SignalHandlers`
    return Training(trainer, timer, checkpoint, outputs, provenance(trainer.accelerator.name()))


def fit_results(training: Training, data: MNISTDataModule) -> dict[str, Any]:
    """Return the results of a training, for `results.json`: its epochs are the complete ones, counted from 1."""
    checkpoint, loop = training.checkpoint, training.trainer.fit_loop
    batches, seconds, score = loop.total_batch_idx + 1, training.timer.time_elapsed(), checkpoint.best_model_score
    return {
        "epochs": checkpoint.epochs,
        "seconds": round(seconds, 1),
        "images_per_second": round(batches * data.batch_size / seconds, 1) if seconds else 0.0,
        "best_epoch": checkpoint.best_epoch or None,
        "best_val_accuracy": None if score is None else round(float(score), 6),
    }


def early_end(trainer: Trainer) -> list[str]:
    """Return a line about each EarlyStopping that has ended a training, with its reason."""
    lines = []
    for callback in trainer.early_stopping_callbacks:
        if trainer.should_stop and callback.stopping_reason_message:
            reason, epochs = callback.stopping_reason_message.split(" Signaling")[0], trainer.current_epoch
            planned = f" of {trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
            lines.append(f"EarlyStopping ended it after {epochs}{planned} epochs: {reason}")
    return lines


def build_trainer(settings: Any, callbacks: Sequence[Callback] = (), timer: TrainingTimer | None = None) -> Trainer:
    """Return a Trainer with callbacks besides the user's; without the timer of a training, it writes no file.

    `settings` are the user's arguments of the Trainer, with instances of its callbacks and loggers.

    Raises:
        UsageError: if an argument is refused.
    """
    given = dict(settings)
    _check_range(given)
    users = _as_list(given["callbacks"])
    for callback in users:
        _check_callback(callback, validated=given["limit_val_batches"] != 0)
    has_bar = any(isinstance(callback, LightningProgressBar) for callback in users)
    if given["enable_progress_bar"] is None:
        given["enable_progress_bar"] = has_bar or sys.stdout.isatty()
    if timer is None:
        given |= {"logger": False, "enable_checkpointing": False}
    bar = [TQDMProgressBar(refresh_rate=10)] if given["enable_progress_bar"] and not has_bar else []
    lines = [EpochLines(timer)] if timer else []  # last: they have the metrics that other callbacks log
    given["callbacks"] = [*callbacks, *users, *bar, *lines]
    try:
        # Every process evaluates all images, instead of a part that is padded with repeated ones.
        trainer = Trainer(**given, use_distributed_sampler=False)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UsageError(f"Trainer: {error}") from error
    _check_strategy(trainer, settings["strategy"])
    return trainer


def _check_callback(callback: Any, *, validated: bool) -> None:
    """Raise UsageError for a callback that cannot be used, or that watches a metric in the wrong direction."""
    name = type(callback).__name__
    for refused, reason in REFUSED_CALLBACKS.items():
        if isinstance(callback, refused):
            raise UsageError(f"--trainer.callbacks: {name} cannot be used: {reason}")
    monitor, mode = getattr(callback, "monitor", None) or "", getattr(callback, "mode", None)
    for word, right in (("acc", "max"), ("loss", "min")):
        if word in monitor and mode in {"min", "max"} and mode != right:
            raise UsageError(f"--trainer.callbacks: {name} watches {monitor} with mode {mode}: give mode {right}")
    if monitor.startswith("val") and not validated:
        raise UsageError(f"--trainer.callbacks: {name} watches {monitor}, and there is no validation")


def _check_range(given: dict[str, Any]) -> None:
    """Raise UsageError for values that the Trainer accepts, but cannot train with."""
    for name, minimum in MINIMUM.items():
        value = given[name]
        if isinstance(value, int | float) and not minimum <= value < inf:
            raise UsageError(f"--trainer.{name} must be at least {minimum} and finite, got {value}")
    if given["val_check_interval"] == 0:
        raise UsageError("--trainer.val_check_interval must not be 0: to disable validation, set limit_val_batches=0")


def _check_strategy(trainer: Trainer, given: Any) -> None:
    """Raise UsageError for strategies other than a single device and DDP in processes that run the whole program.

    Processes that are spawned or forked run only `Trainer.fit`. In sharded strategies, no process has all weights.
    """
    ddp = type(trainer.strategy) is DDPStrategy and given in {"auto", "ddp", "ddp_find_unused_parameters_true"}
    if not (ddp or isinstance(trainer.strategy, SingleDeviceStrategy)):
        name = given if isinstance(given, str) else type(given).__name__
        raise UsageError(f"--trainer.strategy: {name} is not supported: give ddp")


def _as_list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]
