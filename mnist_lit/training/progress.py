"""The progress of a training: a line for each epoch, and a bar."""

from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

if TYPE_CHECKING:
    from mnist_lit.classifier import DigitClassifier

__all__ = ["EpochLines", "ProgressBar"]


class EpochLines(Callback):
    """Print a line for each epoch: its time, and all metrics that are logged as `train/…` or `val/…`."""

    def on_train_start(self, *_: Any) -> None:
        """Start the clock. Lightning does not call `on_train_epoch_start` where an epoch is resumed within it."""
        self.start = perf_counter()
        self.validated = False

    def on_train_epoch_start(self, *_: Any) -> None:
        """Restart the clock."""
        self.on_train_start()

    def on_validation_end(self, *_: Any) -> None:
        """Remember that this epoch has a validation: in others, Lightning still has the metrics of an earlier one."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line, unless a limit has ended the epoch early; validation has already run."""
        if not trainer.is_last_batch:
            return
        metrics = cast("DigitClassifier", pl_module).counts.compute()  # which are not logged yet
        stages = ("train/", "val/") if self.validated else ("train/",)
        logged = {name: value for name, value in trainer.callback_metrics.items() if name.startswith(stages)}
        metrics |= {name: value for name, value in logged.items() if name not in metrics}
        values = [f"{name} {value:.4f}" for name, value in metrics.items()]
        pl_module.print(f"{_epoch(trainer)}  {perf_counter() - self.start:5.1f} s", *values, sep="  ")


class ProgressBar(TQDMProgressBar):
    """Lightning's bar with epochs counted from one, redrawn every five batches."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5)

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Open the bar. Where an epoch is resumed within it, Lightning would give it no name and no total."""
        super().on_train_start(trainer, *args)
        self.on_train_epoch_start(trainer, *args)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Name the epoch."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(_epoch(trainer))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the loss and the validation accuracy, without the version of the run."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if trainer.training and hasattr(
            pl_module, "latest_loss"
        ):  # there is none yet where an epoch is resumed at its end
            metrics = {"loss": f"{cast('DigitClassifier', pl_module).latest_loss:.3f}"} | metrics
        return dict(metrics)


def _epoch(trainer: Trainer) -> str:
    """Return the current epoch, `epoch  3/15`; there may be no limit."""
    total = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {trainer.current_epoch + 1:>2}{total}"
