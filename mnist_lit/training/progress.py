"""Progress of the training: one line per epoch, and a progress bar."""

from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

if TYPE_CHECKING:
    from mnist_lit.classifier import DigitClassifier

__all__ = ["EpochLines", "ProgressBar"]


class EpochLines(Callback):
    """Print a line per epoch: its time, and all metrics that are logged as `train/…` or `val/…`."""

    def on_train_start(self, *_: Any) -> None:
        """Start the clock. Lightning does not call `on_train_epoch_start` for an epoch that is resumed midway."""
        self.start = perf_counter()
        self.validated = False

    def on_train_epoch_start(self, *_: Any) -> None:
        """Restart the clock."""
        self.on_train_start()

    def on_validation_end(self, *_: Any) -> None:
        """Record that this epoch has a validation: in others, Lightning still has the metrics of an earlier one."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line, unless a limit has ended the epoch early. Validation has already run."""
        if not trainer.is_last_batch:
            return
        metrics = cast("DigitClassifier", pl_module).counts.compute()  # not logged yet in this epoch
        stages = ("train/", "val/") if self.validated else ("train/",)
        logged = {name: value for name, value in trainer.callback_metrics.items() if name.startswith(stages)}
        values = [f"{name} {value:.4f}" for name, value in (metrics | logged | metrics).items()]
        pl_module.print(f"{_format_epoch(trainer)}  {perf_counter() - self.start:5.1f} s", *values, sep="  ")


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar with epochs counted from 1, updated every five batches."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5)

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Set up the bar. For an epoch that is resumed midway, Lightning would set no description and no total."""
        super().on_train_start(trainer, *args)
        self.on_train_epoch_start(trainer, *args)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Set the description to the epoch."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(_format_epoch(trainer))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the loss and the validation accuracy, without the version number of the run."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if trainer.training and hasattr(pl_module, "latest_loss"):  # not if resumed at the end of an epoch
            metrics = {"loss": f"{cast('DigitClassifier', pl_module).latest_loss:.3f}"} | metrics
        return dict(metrics)


def _format_epoch(trainer: Trainer) -> str:
    """Return the current epoch and the last one if there is one: `epoch  3/15`."""
    total = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {trainer.current_epoch + 1:>2}{total}"
