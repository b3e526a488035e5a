"""Save `best.ckpt` and `last.ckpt` at the end of complete epochs, durably."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mnist_lit import __version__
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run
from mnist_lit.system.files import write_atomically
from mnist_lit.training.callbacks import DivergedError
from mnist_lit.training.loggers import RunLogger

__all__ = ["DurableCheckpointIO", "EpochCheckpoint"]


class EpochCheckpoint(ModelCheckpoint):
    """Save `best.ckpt` and `last.ckpt` at the end of each complete epoch.

    `best.ckpt` is the epoch with the best validation accuracy, among equal ones that with the lowest validation loss;
    without a validation it is the last epoch. From `last.ckpt` a run resumes. Lightning's own `save_last=True` skips
    the epochs that are not the best, and saves one that a limit has cut.

    Args:
        run: the run, whose settings are saved too.
        validated: whether there is a validation.
        last_epoch: whether `best.ckpt` is the last epoch that was validated, instead of the best one.
    """

    def __init__(self, run: Run, *, validated: bool, last_epoch: bool = False) -> None:
        self.last_epoch, self.best_loss = last_epoch, torch.tensor(torch.inf)
        self.epochs, self.best_epoch = 0, 0
        """Complete epochs, and the one of `best.ckpt`, counted from 1; 0 if none is complete."""
        self.validated_step, self.in_epoch, self.stopped = -1, True, False
        self.run, self.config = run, dict[str, Any]()
        super().__init__(
            run.checkpoints,
            filename="best",
            monitor="val/accuracy" if validated else None,
            mode="max",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether to save an epoch with this validation accuracy as the best one."""
        loss = trainer.callback_metrics.get("val/loss", self.best_loss)
        tied = current is not None and current == self.best_model_score and bool(loss < self.best_loss)
        better = self.last_epoch or tied or super().check_monitor_top_k(trainer, current)
        if better:
            self.best_loss, self.best_epoch = loss, trainer.current_epoch + 1
        return better

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the step: Lightning keeps the metrics of a validation for the epochs after it."""
        super().on_validation_end(trainer, pl_module)
        self.validated_step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save both, unless a limit has cut the epoch. Weights that were not validated cannot be the best."""
        if not trainer.is_last_batch:
            return
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.log_training(trainer)
        self.epochs = trainer.current_epoch + 1
        if self.monitor is None:
            self.best_epoch = self.epochs
        if self.monitor is None or self.validated_step == trainer.global_step:
            super().on_train_epoch_end(trainer, pl_module)
        trainer.save_checkpoint(self._path("last"), weights_only=False)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember whether a callback, such as EarlyStopping, had ended the training, which Lightning forgets.

        Before a test, Lightning's WeightAveraging has just loaded the last step's weights. The averaged ones, which
        were validated, are loaded again.
        """
        self.stopped = checkpoint.get("should_stop", False)
        if trainer.testing and "current_model_state" in checkpoint:
            pl_module.load_state_dict(checkpoint["state_dict"])

    def on_fit_start(self, *_: Any) -> None:
        """Read the settings, also where nothing is left to train."""
        if self.run.config.is_file():  # not in other processes than the first one
            self.config = self.run.settings()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not train if a callback had ended the training."""
        super().on_train_start(trainer, pl_module)
        trainer.should_stop = trainer.should_stop or self.stopped

    def on_fit_end(self, trainer: Trainer, _module: LightningModule) -> None:
        """Save the final weights as `best.ckpt` if no epoch was saved as the best.

        Not in `on_train_end`, which Lightning skips where nothing is left to train.
        """
        self.in_epoch = False
        if not self.best_model_path:
            self.best_model_path = self._path("best")
            trainer.save_checkpoint(self.best_model_path, weights_only=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not save, and keep weights that are not finite out of every checkpoint."""
        checkpoint |= {"mnist_lit": __version__, "precision": trainer.precision}
        checkpoint["config"] = self.config  # so that an edited file is noticed
        checkpoint |= {"complete_epoch": self.in_epoch and trainer.is_last_batch, "should_stop": trainer.should_stop}
        weights = checkpoint["state_dict"]
        if isinstance(temperature := getattr(pl_module, "temperature", None), Tensor):
            weights["temperature"] = temperature.clone()  # callbacks that average weights would average it too
        damaged = [name for name, value in weights.items() if not value.isfinite().all()]
        if trainer.strategy.reduce_boolean_decision(bool(damaged), all=False):  # buffers may differ between processes
            name = damaged[0] if damaged else "a value in another process"
            raise DivergedError(f"{name} is not finite after step {trainer.global_step}")

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the epochs and the loss of the best one."""
        own = {"best_loss": self.best_loss, "best_epoch": self.best_epoch, "epochs": self.epochs}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, even if the run's folder was moved, which makes Lightning forget the best score."""
        own = {name: state_dict[name] for name in ("best_loss", "best_epoch", "epochs")}
        here = self._path("best")
        best = dict(zip([here], state_dict["best_k_models"].values(), strict=False))  # one, or none yet
        paths = {name: here for name in ("best_model_path", "kth_best_model_path") if state_dict[name]}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})
        self.best_loss, self.best_epoch, self.epochs = own.values()
        self.current_score = state_dict["current_score"]  # which Lightning forgets

    def _path(self, name: str) -> str:
        return str(Path(self.dirpath or "", f"{name}.ckpt"))


class DurableCheckpointIO(TorchCheckpointIO):
    """Save checkpoints durably, and load them as `Checkpoint.read` does: verified, within limits, never code.

    Lightning's own saving is not flushed to the disk, and not atomic if the temporary folder is on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ARG002  # Lightning gives none
        """Save by `write_atomically`, or raise OSError and keep the file that was at `path`."""
        content = BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getvalue())

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Return the content of a checkpoint.

        Raises:
            OSError: if the file cannot be opened.
            ValueError: if it is something else, damaged, or would run code when loaded.
        """
        return Checkpoint.read(Path(path)).content
