"""What keeps a run's work: the best and the last checkpoint, and the reasons to stop before they are spoilt."""

import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from mnist_lit.order import mixed
from mnist_lit.runs import Run
from mnist_lit.signals import StopRequest

__all__ = ["FiniteLoss", "KeepBest", "KeepLast", "SeedSteps"]

ADVICE = "try a lower --model.learning_rate; the checkpoints are from before"


class KeepBest(ModelCheckpoint):
    """Keep `best.ckpt`: the best validation accuracy or, without validation, the last epoch.

    Args:
        run: whose checkpoint it is.
        validated: whether there is a validation.
    """

    def __init__(self, run: Run, *, validated: bool) -> None:
        super().__init__(
            run.checkpoints,
            filename="best",
            monitor="val/accuracy" if validated else None,
            mode="max",
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best score so far, also where the run's folder has been moved since."""
        here = str(Path(self.dirpath or "") / "best.ckpt")
        best = dict(zip([here], state_dict["best_k_models"].values(), strict=False))  # one, or none yet
        paths = {name: here for name in ("best_model_path", "kth_best_model_path") if state_dict[name]}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})


class KeepLast(Checkpoint):
    """Keep `last.ckpt`, from which training resumes exactly, and stop there when a signal asks for it.

    It is written at the end of every epoch, every few steps, and before a signal is obeyed.

    Args:
        run: whose checkpoint it is.
        every_n_steps: optimizer steps between two saves within an epoch.
        stop: what signals have asked for.
    """

    def __init__(self, run: Run, every_n_steps: int, stop: StopRequest) -> None:
        self.path, self.every_n_steps, self.stop = run.checkpoints / "last.ckpt", every_n_steps, stop
        self.saved = 0

    def on_sanity_check_start(self, *_: Any) -> None:
        """Take SIGTERM back from Lightning, which would stop between two batches without a checkpoint."""
        signal.signal(signal.SIGTERM, self.stop.note)

    def on_train_start(self, *_: Any) -> None:
        """Do the same where there is no sanity check."""
        self.on_sanity_check_start()

    def on_train_batch_end(
        self, trainer: Trainer, _module: LightningModule, _outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, at a place where Lightning resumes exactly."""
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches
        validation = trainer.val_check_batch and (batch_idx + 1) % trainer.val_check_batch == 0
        if trainer.is_last_batch or accumulating or validation:
            return
        stopping = self._agreed(trainer)
        if stopping or trainer.global_step >= self.saved + self.every_n_steps:
            self._save(trainer)
        if stopping:
            self.stop.check()

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop without saving: training resumes from what was saved last. Several processes end the epoch together."""
        if trainer.world_size == 1:
            self.stop.check()

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save, after validation and the best checkpoint."""
        self._save(trainer)
        if self._agreed(trainer):
            self.stop.check()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, _checkpoint: dict[str, Any]) -> None:
        """Keep what is not finite out of every checkpoint, and let the curves reach as far as the checkpoint does."""
        if not all(parameter.isfinite().all() for parameter in pl_module.parameters()):
            raise ValueError(f"the weights are not finite after step {trainer.global_step}: {ADVICE}")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()

    def _agreed(self, trainer: Trainer) -> bool:
        """Return whether a signal has come to any process, so that all stop after the same step.

        One that comes while they agree is for the next step: a process that saved alone would wait for the others.
        """
        stopping = trainer.strategy.reduce_boolean_decision(self.stop.number is not None, all=False)
        if stopping and self.stop.number is None:
            self.stop.number = signal.SIGTERM
        return stopping

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.saved = trainer.global_step


class FiniteLoss(Callback):
    """Stop before a loss that is NaN or infinite spoils the weights."""

    def on_before_backward(self, trainer: Trainer, _module: LightningModule, loss: Tensor) -> None:
        """Raise ValueError, naming the step."""
        if not trainer.strategy.reduce_boolean_decision(bool(loss.isfinite())):  # in all processes, or they would wait
            raise ValueError(f"the loss is {loss.item()} in step {trainer.global_step + 1}: {ADVICE}")


class SeedSteps(Callback):
    """Seed torch for each batch anew, so that what is random in it does not depend on how the run got there.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Make dropout, augmentation and the like a function of the seed and the batch."""
        seed = mixed(self.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank)
        # Not torch.manual_seed: for devices not in use it keeps every call, with a traceback, at a millisecond each.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(seed)
