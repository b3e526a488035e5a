"""Save `best.ckpt` and `last.ckpt`, durably, and stop at a checkpoint when a signal asks for it."""

import signal
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run
from mnist_lit.system.files import write_atomically
from mnist_lit.system.signals import StopRequest, raise_stopped, set_handler
from mnist_lit.training.callbacks import DivergedError, any_process, is_accumulating

__all__ = ["DurableCheckpointIO", "KeepBest", "KeepLast"]


class KeepBest(ModelCheckpoint):
    """Save `best.ckpt`: the epoch with the best validation accuracy; without validation, the last step.

    Args:
        run: whose checkpoint it is.
        validated: whether there is a validation.
        last_epoch: whether to save the last epoch that was validated, instead of the best one.
    """

    def __init__(self, run: Run, *, validated: bool, last_epoch: bool = False) -> None:
        self.last_epoch = last_epoch
        super().__init__(
            run.checkpoints,
            filename="best",
            monitor="val/accuracy" if validated else None,
            mode="max",
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )

    @property
    def path(self) -> Path:
        """The file, which all processes know: only the first one has the run."""
        return Path(self.dirpath or "", "best.ckpt")

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether to save an epoch with this validation accuracy: the last epoch replaces any other."""
        return self.last_epoch or super().check_monitor_top_k(trainer, current)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless a limit has ended the epoch before its validation."""
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        """Copy the last checkpoint if training ended before its first validation."""
        last = self.path.with_name("last.ckpt")
        if self.best_model_score is None and last.is_file():
            if trainer.is_global_zero:
                write_atomically(self.path, last.read_bytes())
            trainer.strategy.barrier()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, also where the run's folder has been moved."""
        here = str(self.path)
        best = dict(zip([here], state_dict["best_k_models"].values(), strict=False))  # one, or none yet
        paths = {name: here for name in ("best_model_path", "kth_best_model_path") if state_dict[name]}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})
        self.current_score = state_dict["current_score"]


class KeepLast(LightningCheckpoint):
    """Save `last.ckpt`, from which training resumes exactly, and stop there when a signal asks for it.

    It is saved at the end of every epoch, every few steps, and before a signal stops the training.

    Args:
        run: whose checkpoint it is.
        every_n_steps: optimizer steps between two saves within an epoch.
        stop: the request of a signal to stop.
    """

    def __init__(self, run: Run, every_n_steps: int, stop: StopRequest) -> None:
        self.path, self.every_n_steps, self.stop = run.checkpoints / "last.ckpt", every_n_steps, stop
        self.saved = 0
        self.stopped = False

    def on_sanity_check_start(self, trainer: Trainer, *_: Any) -> None:
        """Handle SIGTERM instead of Lightning, which would stop between two batches without a checkpoint.

        In each step, its processes would wait for each other to learn of a signal.
        """
        set_handler(self.stop.handle)
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]  # noqa: SLF001

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Do the same where there is no sanity check, and do not train if a callback had ended the training."""
        self.on_sanity_check_start(trainer)
        trainer.should_stop = trainer.should_stop or self.stopped

    def on_test_start(self, *_: Any) -> None:
        """Let a signal end the test at once: it is repeated when the run is resumed."""
        set_handler(raise_stopped)

    def on_load_checkpoint(self, _trainer: Trainer, _module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember whether a callback, such as EarlyStopping, had ended the training."""
        self.stopped = checkpoint.get("should_stop", False)  # a plain Trainer does not save it

    def on_train_batch_end(
        self, trainer: Trainer, _module: LightningModule, _outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        """Save if it is due. If a validation follows, save after it: Lightning would resume behind the validation."""
        if not trainer.is_last_batch and not is_accumulating(trainer, batch_idx) and not _validation_is_due(trainer):
            self._save_if_due(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop without saving: training resumes from the last save. Several processes finish the epoch together."""
        if trainer.world_size == 1:
            self.stop.check()

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        """Save if it is due, after a validation within an epoch and the best checkpoint."""
        batch_idx = trainer.fit_loop.batch_idx
        if not trainer.sanity_checking and not trainer.is_last_batch and not is_accumulating(trainer, batch_idx):
            self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save, after validation and the best checkpoint. An epoch that was ended early has been saved before."""
        if trainer.is_last_batch:
            self._save(trainer)
            self.stop_if_asked(trainer)

    def on_save_checkpoint(self, trainer: Trainer, _module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep weights that are not finite out of every checkpoint, and flush the curves up to it."""
        states = (checkpoint["state_dict"], checkpoint.get("current_model_state", {}))
        damaged = [name for state in states for name, value in state.items() if not value.isfinite().all()]
        if any_process(trainer, decision=bool(damaged), now=True):  # buffers may differ between processes
            name = damaged[0] if damaged else "a value in another process"
            raise DivergedError(f"{name} is not finite after step {trainer.global_step}")
        checkpoint["should_stop"] = trainer.should_stop
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()

    def stop_if_asked(self, trainer: Trainer) -> None:
        """Raise `Stopped` in all processes if one of them has received a signal."""
        if self._stop_requested(trainer, now=True):
            self.stop.check()

    def _stop_requested(self, trainer: Trainer, *, now: bool = False) -> bool:
        """Return whether any process has received a signal, so that all stop after the same step (see `any_process`).

        A signal during this call counts for the next one: a process that saved alone would wait for the others.
        """
        stopping = any_process(trainer, decision=self.stop.number is not None, now=now)
        if stopping and self.stop.number is None:
            self.stop.number = signal.SIGTERM
        return stopping

    def _save_if_due(self, trainer: Trainer) -> None:
        """Save every few steps, at the end of training, and before a signal stops it."""
        stopping = self._stop_requested(trainer)
        ending = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if stopping or ending or trainer.global_step >= self.saved + self.every_n_steps:
            self._save(trainer)
        if stopping:
            self.stop.check()

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.saved = trainer.global_step


class DurableCheckpointIO(TorchCheckpointIO):
    """Lightning's saving and loading of checkpoints: durable, and without reading a file twice.

    Args:
        resumed: the checkpoint that Lightning is going to load.
    """

    def __init__(self, resumed: Checkpoint | None = None) -> None:
        super().__init__()
        self.resumed = resumed

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save by `write_atomically`, or raise OSError and keep the file that was at `path`."""
        if storage_options is not None:
            raise TypeError("storage_options are for other file systems")
        content = BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getvalue())

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the checkpoint that is resumed, which has been read and verified; load any other file."""
        if self.resumed and Path(path) == self.resumed.path:
            return self.resumed.content
        loaded: dict[str, Any] = super().load_checkpoint(path, *args, **kwargs)
        return loaded


def _validation_is_due(trainer: Trainer) -> bool:
    """Return whether a validation within the epoch follows the current batch, as Lightning decides it."""
    if not trainer.enable_validation or not isinstance(trainer.val_check_batch, int):  # a time interval may be infinite
        return False
    every = trainer.check_val_every_n_epoch
    batches = trainer.fit_loop.total_batch_idx if every is None else trainer.fit_loop.batch_idx
    return (every is None or (trainer.current_epoch + 1) % every == 0) and (batches + 1) % trainer.val_check_batch == 0
