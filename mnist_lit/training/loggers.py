"""Where a run logs: TensorBoard, always, and the loggers that a person names."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from mnist_lit.runs.folders import Run
from mnist_lit.system.distributed import process_rank
from mnist_lit.system.errors import UsageError

if TYPE_CHECKING:
    from functools import partial

__all__ = ["LOGGER_DEFAULTS", "RunLogger", "build_loggers"]

RUN_FOLDER = "<run>"
"""Stands for the run folder in the arguments of a logger: a saved config repeats the run in a folder of its own."""
LOGGER_DEFAULTS: dict[type[Logger], dict[str, str]] = {
    CSVLogger: {"save_dir": RUN_FOLDER, "name": "csv"},
    TensorBoardLogger: {"save_dir": RUN_FOLDER, "name": "tensorboard"},
    WandbLogger: {"save_dir": RUN_FOLDER},
    MLFlowLogger: {"save_dir": RUN_FOLDER},
}
"""What differs from Lightning's defaults, so that a name is enough."""


class RunLogger(TensorBoardLogger):
    """TensorBoard's events, straight into the run folder."""

    def __init__(self, run: Run, purge_step: int | None = None) -> None:
        # TensorBoard drops what an interrupted run has logged from the purge step on.
        folder = run.folder
        super().__init__(folder.parent, "", folder.name, default_hp_metric=False, purge_step=purge_step)

    def save(self) -> None:
        """Write no hparams.yaml: the run's config.yaml says more."""


def build_loggers(given: Any, run: Run, purge_step: int | None = None) -> list[Logger]:
    """Return the loggers of a run: its own, then those that are named.

    Args:
        given: False for no logger at all, or what makes those that are named (see `settings.instantiate`).
        run: where they log.
        purge_step: if the run has been started before: the step from which on its curves are replaced.

    Raises:
        UsageError: if a logger is not installed, or refuses its arguments.
    """
    if given is False:
        return []
    named = given if isinstance(given, list) else [] if given is None or given is True else [given]
    if process_rank() > 0:  # only the first process logs
        named = []
    return [RunLogger(run, purge_step), *(_build(make, run) for make in named)]


def _build(make: "partial[Logger]", run: Run) -> Logger:
    arguments = {
        name: value.replace(RUN_FOLDER, str(run.folder)) if isinstance(value, str) else value
        for name, value in make.keywords.items()
    }
    try:
        if (
            make.func is MLFlowLogger and not arguments["tracking_uri"]
        ):  # MLflow refuses Lightning's default, plain files
            folder = Path(arguments["save_dir"])
            folder.mkdir(parents=True, exist_ok=True)
            arguments["tracking_uri"] = f"sqlite:///{folder}/mlflow.db"
            arguments["artifact_location"] = arguments["artifact_location"] or str(folder / "mlruns")
        if make.func is WandbLogger and "wandb" in sys.modules:
            sys.modules["wandb"].finish()  # the former run of this process, which would get this one's values
        return make.func(**arguments)
    except (ImportError, ValueError, TypeError) as error:
        raise UsageError(f"--trainer.logger: {make.func.__name__}: {error}") from error
