"""What a person sees of a run while it goes on."""

from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

__all__ = ["EpochLines", "ProgressBar"]

SHOWN = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


class EpochLines(Callback):
    """Print a line an epoch: time, loss and accuracy. On a terminal the progress bar goes on below the lines."""

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock."""
        self.start = perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line; validation has already run, as part of the epoch."""
        values = [f"{name} {trainer.callback_metrics[name]:.4f}" for name in SHOWN if name in trainer.callback_metrics]
        seconds = perf_counter() - self.start
        pl_module.print(
            f"epoch {trainer.current_epoch + 1:>2}/{trainer.max_epochs}  {seconds:5.1f} s", *values, sep="  "
        )


class ProgressBar(TQDMProgressBar):
    """Lightning's bar with epochs counted from one, redrawn a few times a second."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Name the epoch."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1:>2}/{trainer.max_epochs}")

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the loss and the validation accuracy; the run's number is no metric."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return dict(metrics)
