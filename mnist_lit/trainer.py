"""The Trainer of a run: what it logs, keeps and shows."""

import sys
from collections.abc import Sequence
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from mnist_lit.callbacks import EpochLines, ProgressBar
from mnist_lit.runs import Run
from mnist_lit.usage import UsageError

__all__ = ["best_checkpoint", "build_trainer", "last_checkpoint"]


class RunLogger(TensorBoardLogger):
    """TensorBoard's events, straight into the run folder."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.folder.parent, name="", version=run.folder.name, default_hp_metric=False)

    def save(self) -> None:
        """Write no hparams.yaml: the run's config.yaml says more."""


def best_checkpoint(run: Run, *, validated: bool) -> ModelCheckpoint:
    """Return the callback that keeps `best.ckpt`: the best validation accuracy or, without validation, the last."""
    return _checkpoint(run, "best", monitor="val/accuracy" if validated else None, mode="max")


def last_checkpoint(run: Run) -> ModelCheckpoint:
    """Return the callback that keeps `last.ckpt`, written at the end of every epoch."""
    return _checkpoint(run, "last", save_on_train_epoch_end=True)


def _checkpoint(run: Run, name: str, **when: Any) -> ModelCheckpoint:
    return ModelCheckpoint(
        run.checkpoints, filename=name, enable_version_counter=False, auto_insert_metric_name=False, **when
    )


def build_trainer(settings: Any, run: Run | None = None, callbacks: Sequence[Callback] = ()) -> Trainer:
    """Return a Trainer that writes into `run`, or nowhere.

    Args:
        settings: the arguments of the Trainer as given by the user, which win.
        run: where to log and keep checkpoints.
        callbacks: besides the user's and those that show progress.

    Raises:
        UsageError: if the Trainer refuses its arguments.
    """
    given = dict(settings)
    if given["enable_progress_bar"] is None:
        given["enable_progress_bar"] = sys.stdout.isatty()
    own = [*callbacks, *([ProgressBar()] if given["enable_progress_bar"] else [])]
    if run is None:
        given |= {"logger": False, "enable_checkpointing": False}
    else:
        own.append(EpochLines())
        given["default_root_dir"] = run.folder
        if given["logger"] is None or given["logger"] is True:
            given["logger"] = RunLogger(run)
        if given["logger"]:
            own.append(LearningRateMonitor(logging_interval="epoch"))
    theirs = given["callbacks"] or []
    given["callbacks"] = own + (theirs if isinstance(theirs, list) else [theirs])
    try:
        return Trainer(**given)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UsageError(f"Trainer: {error}") from error
