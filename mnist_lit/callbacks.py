"""What a person sees of a run while it goes on."""

from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

if TYPE_CHECKING:
    from mnist_lit.classifier import DigitClassifier

__all__ = ["EpochLines", "ProgressBar"]


class EpochLines(Callback):
    """Print a line an epoch: time, loss and accuracy. On a terminal the progress bar goes on below the lines."""

    def on_train_start(self, *_: Any) -> None:
        """Start the clock. Within an epoch that is resumed, there is no other start."""
        self.start = perf_counter()
        self.validated = False

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start it anew."""
        self.on_train_start()

    def on_validation_end(self, *_: Any) -> None:
        """Note that this epoch has a validation: in others, Lightning still has the values of an earlier one."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line; validation has already run, as part of the epoch. A limit may have cut the epoch."""
        if not trainer.is_last_batch:
            return
        metrics = cast("DigitClassifier", pl_module).counts.compute()
        if self.validated:
            metrics |= {name: trainer.callback_metrics[name] for name in ("val/loss", "val/accuracy")}
        values = [f"{name} {value:.4f}" for name, value in metrics.items()]
        pl_module.print(f"{_epoch(trainer)}  {perf_counter() - self.start:5.1f} s", *values, sep="  ")


class ProgressBar(TQDMProgressBar):
    """Lightning's bar with epochs counted from one, redrawn every five batches."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5)

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Open the bar. Within an epoch that is resumed, Lightning would leave it without a name and an end."""
        super().on_train_start(trainer, *args)
        self.on_train_epoch_start(trainer, *args)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Name the epoch."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(_epoch(trainer))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the loss and the validation accuracy; the run's number is no metric."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if trainer.training and hasattr(pl_module, "latest_loss"):  # none yet where an epoch is resumed at its very end
            metrics = {"loss": f"{cast('DigitClassifier', pl_module).latest_loss:.3f}"} | metrics
        return dict(metrics)


def _epoch(trainer: Trainer) -> str:
    """Return how far training is, `epoch  3/15`; there may be no limit."""
    total = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {trainer.current_epoch + 1:>2}{total}"
