"""Loggers of a run: always TensorBoard, and those that the user adds."""

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
"""Placeholder in a logger's arguments: a run that is repeated from a saved config logs into its own folder."""
LOGGER_DEFAULTS: dict[type[Logger], dict[str, str]] = {
    CSVLogger: {"save_dir": RUN_FOLDER, "name": "csv"},
    TensorBoardLogger: {"save_dir": RUN_FOLDER, "name": "tensorboard"},
    WandbLogger: {"save_dir": RUN_FOLDER},
    MLFlowLogger: {"save_dir": RUN_FOLDER},
}
"""Defaults other than Lightning's, so that the name of a logger is enough."""


class RunLogger(TensorBoardLogger):
    """Logs to TensorBoard directly in the run folder, not in a subfolder.

    Args:
        run: whose folder it is.
        purge_step: of a run that was interrupted: TensorBoard discards what was logged from this step on.
    """

    def __init__(self, run: Run, purge_step: int | None = None) -> None:
        folder = run.folder
        super().__init__(folder.parent, "", folder.name, default_hp_metric=False, purge_step=purge_step)

    def save(self) -> None:
        """Write no hparams.yaml: the run's config.yaml has all settings."""


def build_loggers(given: Any, run: Run, purge_step: int | None = None) -> list[Logger]:
    """Return the loggers of a run: TensorBoard, then the user's.

    Args:
        given: False for no logger at all, or partial loggers (see `settings.instantiate`).
        run: where they log.
        purge_step: see `RunLogger`.

    Raises:
        UsageError: if a logger is not installed, or refuses its arguments.
    """
    if given is False:
        return []
    added = given if isinstance(given, list) else [] if given is None or given is True else [given]
    if process_rank() > 0:  # only the first process logs
        added = []
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
