"""Progress of the training: one line per epoch."""

from math import ceil
from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from mnist_lit.training.callbacks import TrainingTimer

__all__ = ["EpochLines"]


class EpochLines(Callback):
    """Print a line per epoch: its time, and all metrics that are logged as `train/…` or `val/…`.

    Args:
        timer: the Timer of the training.
    """

    def __init__(self, timer: TrainingTimer) -> None:
        self.timer = timer

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock."""
        self.start = perf_counter()
        self.validated = False

    def on_validation_end(self, *_: Any) -> None:
        """Record that this epoch has a validation: otherwise, Lightning keeps the metrics of an earlier one."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line, unless a limit has cut the epoch. Validation has already run."""
        if not trainer.is_last_batch:
            return
        stages = ("train/", "val/") if self.validated else ("train/",)
        metrics = trainer.callback_metrics.items()
        values = [f"{name} {value:.4f}" for stage in stages for name, value in metrics if name.startswith(stage)]
        if left := _format_time_left(trainer, self.timer):
            values.append(f"{left} left")
        total = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        epoch = f"epoch {trainer.current_epoch + 1:>2}{total}  {perf_counter() - self.start:5.1f} s"
        pl_module.print(epoch, *values, sep="  ")


def _format_time_left(trainer: Trainer, timer: TrainingTimer) -> str:
    """Return the time that the training will still take, or nothing if that is unknown, or if it is at its end."""
    loop, limits = trainer.fit_loop, []
    batches = loop.total_batch_idx + 1
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * trainer.num_training_batches - batches)
    if trainer.max_steps > 0:
        limits.append((trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
    times = [number * timer.time_elapsed() / max(1, batches) for number in limits]
    if (remaining := timer.time_remaining()) is not None:
        times.append(remaining)
    return str(tqdm.format_interval(ceil(min(times)))) if times and min(times) > 0 else ""
