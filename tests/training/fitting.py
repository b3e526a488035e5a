"""Short trainings with Lightning's Trainer and some callbacks, on real images."""

from pathlib import Path
from typing import Any

from conftest import stock_trainer
from lightning.pytorch import Callback

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run
from mnist_lit.system.signals import StopRequest
from mnist_lit.training.checkpointing import KeepLast

__all__ = ["epoch_and_step", "fit", "keep_last"]


def fit(data_dir: Path, run: Run, *callbacks: Callback, batch_norm: bool = False, **arguments: Any) -> DigitClassifier:
    """Train two epochs of 20 steps, unless the Trainer's arguments are others."""
    classifier = DigitClassifier(channels=[4], batch_norm=batch_norm)
    settings = {"max_epochs": 2, "limit_train_batches": 20, "limit_val_batches": 5} | arguments
    trainer = stock_trainer(run.folder, callbacks=list(callbacks), **settings)
    trainer.fit(classifier, MNISTDataModule(data_dir=str(data_dir)))
    return classifier


def keep_last(run: Run, every_n_steps: int = 200) -> KeepLast:
    """Return the callback that saves `last.ckpt`."""
    return KeepLast(run, every_n_steps, StopRequest())


def epoch_and_step(path: Path) -> tuple[int, int]:
    """Return the epoch, counted from 0, and the global step of a checkpoint."""
    content = Checkpoint.read(path).content
    return content["epoch"], content["global_step"]
