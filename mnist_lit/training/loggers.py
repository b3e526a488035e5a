"""Loggers of a run: always TensorBoard, and those that the user adds."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from mnist_lit.runs.folders import Run
from mnist_lit.system.errors import UsageError
from mnist_lit.system.program import process_rank

if TYPE_CHECKING:
    from functools import partial

__all__ = ["LOGGER_DEFAULTS", "RunLogger", "build_loggers"]

RUN_FOLDER = "<run>"
"""Placeholder for the run folder. A saved config keeps it, so that a run which repeats it logs into its own folder."""
LOGGER_DEFAULTS: dict[type[Logger], dict[str, str]] = {
    CSVLogger: {"save_dir": RUN_FOLDER, "name": "csv"},
    TensorBoardLogger: {"save_dir": RUN_FOLDER, "name": "tensorboard"},
    WandbLogger: {"save_dir": RUN_FOLDER},
    MLFlowLogger: {"save_dir": RUN_FOLDER},
}
"""Defaults other than Lightning's, so that the name of a logger is enough."""


class RunLogger(TensorBoardLogger):
    """Log to TensorBoard directly in the run folder, not in a subfolder.

    Args:
        run: the run whose folder it is.
        purge_step: in a run that was interrupted, the step from which TensorBoard discards what was logged before.
    """

    def __init__(self, run: Run, purge_step: int | None = None) -> None:
        folder = run.folder
        super().__init__(folder.parent, "", folder.name, default_hp_metric=False, purge_step=purge_step)
        self.steps: dict[str, int | None] = {}

    def log_training(self, trainer: Trainer) -> None:
        """Log the metrics of a training epoch, and flush all that was logged to the disk.

        Lightning logs them after the checkpoint of the epoch. If the run were killed in between, they would be lost,
        since it resumes after this epoch.
        """
        metrics = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("train/")}
        metrics["epoch"] = float(trainer.current_epoch)  # as Lightning does
        self.log_metrics(metrics, trainer.global_step - 1)
        self.experiment.flush()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, each once in a step."""
        new = {name: value for name, value in metrics.items() if step is None or self.steps.get(name) != step}
        self.steps |= dict.fromkeys(metrics, step)
        super().log_metrics(new, step)

    def save(self) -> None:
        """Write no hparams.yaml: the run's config.yaml has all settings."""


def build_loggers(given: Any, run: Run, purge_step: int | None = None) -> list[Logger]:
    """Return the loggers of a run: TensorBoard, then the user's, given as partial loggers (see `flags.instantiate`).

    There is none if False is given.

    Raises:
        UsageError: if a logger is not installed, or refuses its arguments.
    """
    if given is False:
        return []
    added = given if isinstance(given, list) else [] if given is None or given is True else [given]
    added = added if process_rank() == 0 else []  # only the first process logs
    return [RunLogger(run, purge_step), *(_build(make, run) for make in added)]


def _build(make: "partial[Logger]", run: Run) -> Logger:
    arguments = {
        name: value.replace(RUN_FOLDER, str(run.folder)) if isinstance(value, str) else value
        for name, value in make.keywords.items()
    }
    try:
        if make.func is MLFlowLogger and not arguments["tracking_uri"]:
            # MLflow refuses Lightning's default, a folder of plain files.
            folder = Path(arguments["save_dir"])
            folder.mkdir(parents=True, exist_ok=True)
            arguments["tracking_uri"] = f"sqlite:///{folder}/mlflow.db"
            arguments["artifact_location"] = arguments["artifact_location"] or str(folder / "mlruns")
        if make.func is WandbLogger and "wandb" in sys.modules:
            sys.modules["wandb"].finish()  # an earlier run of this process, which would log this one's values
        return make.func(**arguments)
    except (ImportError, ValueError, TypeError) as error:
        raise UsageError(f"--trainer.logger: {make.func.__name__}: {error}") from error
