"""Progress of the training: one line per epoch, and a progress bar."""

from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from mnist_lit.training.callbacks import LOSSES_PER_CHECK, Limits

if TYPE_CHECKING:
    from mnist_lit.classifier import DigitClassifier

__all__ = ["EpochLines", "ProgressBar", "format_duration"]


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
        if left := _format_time_left(trainer):
            values.append(f"{left} left")
        pl_module.print(f"{_format_epoch(trainer)}  {perf_counter() - self.start:5.1f} s", *values, sep="  ")


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar with epochs counted from 1, updated every five batches."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5)
        self.loss, self.loss_step = "", -LOSSES_PER_CHECK

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Set up the bar. For an epoch that is resumed midway, Lightning would set no description and no total."""
        super().on_train_start(trainer, *args)
        self.on_train_epoch_start(trainer, *args)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Set the description to the epoch."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(_format_epoch(trainer))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the loss, the validation accuracy and the time left of the run, without the run's version number."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if trainer.training and hasattr(pl_module, "latest_loss"):  # not if resumed at the end of an epoch
            # To read it makes a GPU wait, but not a CPU.
            if pl_module.device.type == "cpu" or trainer.global_step >= self.loss_step + LOSSES_PER_CHECK:
                self.loss, self.loss_step = f"{cast('DigitClassifier', pl_module).latest_loss:.3f}", trainer.global_step
            metrics = {"loss": self.loss} | metrics
        if trainer.training and (left := _format_time_left(trainer)):
            metrics["left"] = left
        return dict(metrics)


def _format_epoch(trainer: Trainer) -> str:
    """Return the current epoch and the last one if there is one: `epoch  3/15`."""
    total = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {trainer.current_epoch + 1:>2}{total}"


def _format_time_left(trainer: Trainer) -> str:
    """Return the time that the training will still take, or nothing if that is unknown, or if it is at its end."""
    limits = (callback for callback in trainer.callbacks if isinstance(callback, Limits))  # type: ignore[attr-defined]
    seconds = next((callback.seconds_left(trainer) for callback in limits), None)
    return format_duration(seconds) if seconds else ""


def format_duration(seconds: float) -> str:
    """Return a time in the largest units.

    >>> [format_duration(seconds) for seconds in (0.4, 59, 61, 7_140, 7_300)]
    ['1 s', '59 s', '2 min', '1 h 59 min', '2 h 2 min']
    """
    if seconds <= 59:
        return f"{max(1, ceil(seconds))} s"
    minutes = ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
