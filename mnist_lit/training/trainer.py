"""The Trainer of a run: what it logs, keeps and shows."""

import re
import sys
from collections.abc import Sequence
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
from lightning.pytorch.callbacks import ProgressBar as LightningBar
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher

from mnist_lit.runs.checkpoints import Checkpoint, DurableCheckpointIO
from mnist_lit.runs.folders import Run
from mnist_lit.system.errors import UsageError
from mnist_lit.system.signals import launching_children
from mnist_lit.training.loggers import build_loggers
from mnist_lit.training.progress import EpochLines, ProgressBar

__all__ = ["build_trainer"]


REFUSED: dict[type[Callback], str] = {
    LearningRateFinder: "it is broken since Lightning 2.5.3 (issue 21141), and no run resumes after it: use search",
    BatchSizeFinder: "the batch size is part of the recipe: set --data.batch_size",
    GradientAccumulationScheduler: (
        "within an epoch that is resumed it would not accumulate, and a schedule cannot know of it: set "
        "--trainer.accumulate_grad_batches"
    ),
    StochasticWeightAveraging: "it averages after the last checkpoint: use WeightAveraging or EMAWeightAveraging",
}
LEAST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0, "val_check_interval": 0}
MOST_DEVICES = 1_024
"""The Trainer would list them all, which takes gigabytes for a billion."""


def build_trainer(
    settings: Any,
    run: Run | None = None,
    callbacks: Sequence[Callback] = (),
    *,
    resumed: Checkpoint | None = None,
    purge_step: int | None = None,
    rate_changes: Literal["step", "epoch"] = "epoch",
) -> Trainer:
    """Return a Trainer that writes into `run`, or nowhere.

    Args:
        settings: the arguments of the Trainer as given by the user, which win.
        run: where to log and keep checkpoints.
        callbacks: besides the user's and those that show progress.
        resumed: the checkpoint that is going to be resumed.
        purge_step: if the run has been started before: the step from which on its curves are replaced.
        rate_changes: how often the learning rate is logged: each epoch, or as often as Lightning logs steps.

    Raises:
        UsageError: if the Trainer refuses its arguments.
    """
    given = dict(settings)
    _check_range(given)
    bar_named = any(isinstance(callback, LightningBar) for callback in _listed(given["callbacks"]))
    if given["enable_progress_bar"] is None:
        given["enable_progress_bar"] = bar_named or sys.stdout.isatty()
    own = [*callbacks, *([ProgressBar()] if given["enable_progress_bar"] and not bar_named else [])]
    if run is None:
        given |= {"logger": False, "enable_checkpointing": False}
    else:
        own.append(EpochLines())
        given["default_root_dir"] = run.folder
        given["logger"] = build_loggers(given["logger"], run, purge_step)
        if given["logger"]:
            own.append(LearningRateMonitor(logging_interval=rate_changes))
        given["plugins"] = [DurableCheckpointIO(resumed), *_listed(given["plugins"])]
    for callback in (callbacks_given := _listed(given["callbacks"])):
        for refused, reason in REFUSED.items():
            if isinstance(callback, refused):
                raise UsageError(f"--trainer.callbacks: {type(callback).__name__} cannot be used: {reason}")
    given["callbacks"] = own + callbacks_given
    try:
        trainer = Trainer(**given)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UsageError(f"Trainer: {error}") from error
    strategy = trainer.strategy
    # Not where Lightning starts processes that run a function, without what comes after `fit`, nor where no process has
    # all the weights.
    ddp = type(strategy) is DDPStrategy and not isinstance(strategy.launcher, _MultiProcessingLauncher)
    if not (ddp or isinstance(strategy, SingleDeviceStrategy)):
        name = settings["strategy"] if isinstance(settings["strategy"], str) else type(strategy).__name__
        raise UsageError(f"--trainer.strategy: {name} is not supported: give ddp")
    if isinstance(launcher := strategy.launcher, _SubprocessScriptLauncher):
        start = launcher._call_children_scripts  # noqa: SLF001  # where it starts the other processes
        launcher._call_children_scripts = launching_children()(start)  # type: ignore[method-assign]  # noqa: SLF001
    return trainer


def _check_range(given: dict[str, Any]) -> None:
    """Raise UsageError for what the Trainer does not refuse, but cannot train with."""
    for name, least in LEAST.items():
        value = given[name]
        if isinstance(value, int | float) and not least <= value < inf:
            raise UsageError(f"--trainer.{name} must be at least {least} and finite, got {value}")
    if given["val_check_interval"] == 0:
        raise UsageError("--trainer.val_check_interval must not be 0: --trainer.limit_val_batches=0 does not validate")
    for name in ("devices", "num_nodes"):
        if re.fullmatch(r"\d{1,4000}", value := str(given[name])) and int(value) > MOST_DEVICES:
            raise UsageError(f"--trainer.{name} must be at most {MOST_DEVICES:,}, got {value}")


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]
