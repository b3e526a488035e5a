"""Short trainings with Lightning's Trainer and some callbacks, on real images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from conftest import stock_trainer
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.datasets.sampling import Batch
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run
from mnist_lit.system.libraries import set_up_libraries
from mnist_lit.training.checkpointing import DurableCheckpointIO, EpochCheckpoint

__all__ = ["Scripted", "SetWeight", "epoch_and_step", "fit", "fit_scripted"]


class Scripted(DigitClassifier):
    """Log the accuracy and the loss that `scores` has for the epoch as those of the validation."""

    scores: Sequence[tuple[float, float]]

    def validation_step(self, batch: Batch) -> Tensor:
        accuracy, loss = self.scores[self.current_epoch]
        self.log_dict({"val/accuracy": accuracy, "val/loss": loss})
        logits: Tensor = self(batch[0])
        return logits


class SetWeight(Callback):
    """Fill a weight or buffer with a value after a step."""

    def __init__(self, name: str, value: float, step: int) -> None:
        self.name, self.value, self.step = name, value, step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            pl_module.state_dict()[self.name].fill_(self.value)


def fit(
    data_dir: Path,
    run: Run,
    *callbacks: Callback,
    classifier: DigitClassifier | None = None,
    ckpt_path: Path | None = None,
    **arguments: Any,
) -> Trainer:
    """Train two epochs of 20 steps, unless the Trainer's arguments are others."""
    set_up_libraries()  # as a command does: a resumed run has checkpoints
    seed_everything(1, verbose=False)
    classifier = classifier or DigitClassifier(channels=[4])
    settings = {"max_epochs": 2, "limit_train_batches": 20, "limit_val_batches": 2} | arguments
    trainer = stock_trainer(run.folder, callbacks=list(callbacks), plugins=[DurableCheckpointIO()], **settings)
    trainer.fit(classifier, MNISTDataModule(data_dir=str(data_dir)), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def fit_scripted(
    data_dir: Path, run: Run, scores: Sequence[tuple[float, float]], ckpt_path: Path | None = None, **settings: Any
) -> EpochCheckpoint:
    """Train an epoch of one step for each score, and return the callback."""
    classifier = Scripted(channels=[1])
    classifier.scores = scores
    checkpoint = EpochCheckpoint(run, validated=True, **settings)
    short = {"max_epochs": len(scores), "limit_train_batches": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    fit(data_dir, run, checkpoint, classifier=classifier, ckpt_path=ckpt_path, **short)
    return checkpoint


def epoch_and_step(path: Path) -> tuple[int, int]:
    """Return the epoch, counted from 0, and the global step of a checkpoint, whose weights are finite."""
    content = Checkpoint.read(path).content
    assert all(torch.isfinite(value).all() for value in content["state_dict"].values())
    return content["epoch"], content["global_step"]
