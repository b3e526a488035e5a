"""The Trainer of a run: its loggers, callbacks and plugins."""

import re
import sys
from collections.abc import Sequence
from inspect import signature
from math import inf
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    StochasticWeightAveraging,
)
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher
from torch.nn.parallel import DistributedDataParallel

from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run
from mnist_lit.system.errors import UsageError
from mnist_lit.system.signals import launching_children
from mnist_lit.training.callbacks import SyncBuffers
from mnist_lit.training.checkpointing import DurableCheckpointIO
from mnist_lit.training.loggers import build_loggers
from mnist_lit.training.progress import EpochLines, ProgressBar

__all__ = ["build_trainer"]

REFUSED_CALLBACKS: dict[type[Callback], str] = {
    LearningRateFinder: "it is broken since Lightning 2.5.3 (issue 21141), and no run resumes after it: use search",
    BatchSizeFinder: "the batch size is part of the recipe: set --data.batch_size",
    GradientAccumulationScheduler: (
        "it does not accumulate in an epoch that is resumed midway, and the learning rate schedule ignores it: set "
        "--trainer.accumulate_grad_batches"
    ),
    StochasticWeightAveraging: "it averages after the last checkpoint: use WeightAveraging or EMAWeightAveraging",
}
MINIMUM = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0, "val_check_interval": 0}
MAX_DEVICES = 1_024
"""The Trainer makes a list of all devices, which takes gigabytes for a billion."""


def build_trainer(
    settings: Any,
    run: Run | None = None,
    callbacks: Sequence[Callback] = (),
    *,
    resumed: Checkpoint | None = None,
    purge_step: int | None = None,
    rate_changes: Literal["step", "epoch"] = "epoch",
) -> Trainer:
    """Return a Trainer that writes into the run folder, or does not write any file.

    Args:
        settings: the user's arguments of the Trainer, which take precedence.
        run: where to log and save checkpoints.
        callbacks: in addition to the user's and those that show progress.
        resumed: the checkpoint from which training is resumed.
        purge_step: of a run that was started before: its curves are replaced from this step on.
        rate_changes: how often the learning rate is logged: every epoch, or every `log_every_n_steps`.

    Raises:
        UsageError: if an argument is refused.
    """
    given = dict(settings)
    _check_range(given)
    user_callbacks = _as_list(given["callbacks"])
    for callback in user_callbacks:
        for refused, reason in REFUSED_CALLBACKS.items():
            if isinstance(callback, refused):
                raise UsageError(f"--trainer.callbacks: {type(callback).__name__} cannot be used: {reason}")
    has_bar = any(isinstance(callback, LightningProgressBar) for callback in user_callbacks)
    if given["enable_progress_bar"] is None:
        given["enable_progress_bar"] = has_bar or sys.stdout.isatty()
    own_callbacks = list(callbacks)
    if given["enable_progress_bar"] and not has_bar:
        own_callbacks.append(ProgressBar())
    if run is None:
        given |= {"logger": False, "enable_checkpointing": False}
    else:
        given["default_root_dir"] = run.folder
        given["logger"] = build_loggers(given["logger"], run, purge_step)
        if given["logger"]:
            own_callbacks.append(LearningRateMonitor(logging_interval=rate_changes))
        given["plugins"] = [DurableCheckpointIO(resumed), *_as_list(given["plugins"])]
    # Last: SyncBuffers after WeightAveraging has put its averages in, EpochLines with the metrics that others log.
    given["callbacks"] = [*own_callbacks, *user_callbacks, SyncBuffers(), EpochLines()]
    try:
        trainer = Trainer(**given)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UsageError(f"Trainer: {error}") from error
    _check_strategy(trainer, settings["strategy"])
    if isinstance(trainer.strategy, DDPStrategy):
        _adapt(trainer.strategy)
    return trainer


def _check_range(given: dict[str, Any]) -> None:
    """Raise UsageError for values that the Trainer accepts, but cannot train with."""
    for name, minimum in MINIMUM.items():
        value = given[name]
        if isinstance(value, int | float) and not minimum <= value < inf:
            raise UsageError(f"--trainer.{name} must be at least {minimum} and finite, got {value}")
    if given["val_check_interval"] == 0:
        raise UsageError("--trainer.val_check_interval must not be 0: --trainer.limit_val_batches=0 does not validate")
    for name in ("devices", "num_nodes"):
        if re.fullmatch(r"\d{1,4000}", value := str(given[name])) and int(value) > MAX_DEVICES:
            raise UsageError(f"--trainer.{name} must be at most {MAX_DEVICES:,}, got {value}")


def _check_strategy(trainer: Trainer, given: Any) -> None:
    """Raise UsageError for strategies other than a single device and DDP in processes that run the whole program.

    Multiprocessing launchers run only `Trainer.fit`. In sharded strategies, no process has all weights.
    """
    strategy = trainer.strategy
    ddp = type(strategy) is DDPStrategy and not isinstance(strategy.launcher, _MultiProcessingLauncher)
    if not (ddp or isinstance(strategy, SingleDeviceStrategy)):
        name = given if isinstance(given, str) else type(strategy).__name__
        raise UsageError(f"--trainer.strategy: {name} is not supported: give ddp")


def _adapt(strategy: DDPStrategy) -> None:
    """Do not send buffers in every step (see `SyncBuffers`), nor copy gradients, and mark child processes as such."""
    given = strategy._ddp_kwargs  # noqa: SLF001
    given.setdefault("gradient_as_bucket_view", True)
    names = ("forward_sync_buffers", "broadcast_buffers")  # since torch 2.15, and before
    if not given.keys() & {*names}:
        accepted = signature(DistributedDataParallel).parameters
        given[next(name for name in names if name in accepted)] = False
    if isinstance(launcher := strategy.launcher, _SubprocessScriptLauncher):
        launch = launcher._call_children_scripts  # noqa: SLF001  # launches the child processes
        launcher._call_children_scripts = launching_children()(launch)  # type: ignore[method-assign]  # noqa: SLF001


def _as_list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]
