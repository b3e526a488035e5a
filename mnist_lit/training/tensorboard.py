"""What TensorBoard shows besides the curves: settings, charts, texts and pictures."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch.utils.tensorboard.summary import hparams

from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.sampling import Batch
from mnist_lit.training.evaluation import Outputs
from mnist_lit.training.plots import MAX_IMAGES, draw_captioned, draw_evaluation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardCallback", "write_summary"]

METRICS = ("val/accuracy", "test/accuracy")
CHARTS = {
    "training and validation": {name: ["Multiline", [f"train/{name}", f"val/{name}"]] for name in ("loss", "accuracy")}
}


def write_summary(trainer: Trainer, lines: Sequence[str]) -> None:
    """Write the summary of a run to its TensorBoard logs, and close all logs."""
    _write_text(trainer, "summary", "\n\n".join(lines))
    for logger in trainer.loggers:
        logger.finalize("success")


def _write_text(trainer: Trainer, tag: str, text: str) -> None:
    """Write Markdown."""
    for writer in _writers(trainer):
        writer.add_text(tag, text, trainer.global_step)


class TensorBoardCallback(Callback):
    """Write the settings at the start, and pictures at each validation and after the test.

    Args:
        outputs: outputs of the latest evaluation.
        data: the data module.
        settings: settings by which TensorBoard compares runs.
        config: file of all settings.
    """

    def __init__(self, outputs: Outputs, data: MNISTDataModule, settings: dict[str, Any], config: Path) -> None:
        self.outputs, self.data, self.settings, self.config = outputs, data, settings, config
        self.classes = data.dataset.classes
        self.batch: Batch | None = None

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Write the settings."""
        plain = {name: v if isinstance(v, bool | int | float | str) else str(v) for name, v in self.settings.items()}
        for writer in _writers(trainer):
            writer.add_custom_scalars(CHARTS)
            for summary in hparams(plain, dict.fromkeys(METRICS, 0)):  # type: ignore[no-untyped-call]
                writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]
            code = indent(self.config.read_text(encoding="utf-8"), "    ")  # a code block of Markdown
            writer.add_text("config", code, trainer.global_step)

    def on_train_batch_end(
        self, _trainer: Trainer, _module: LightningModule, _outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Keep the latest batch, augmented as the network got it."""
        self.batch = batch

    def on_validation_end(self, trainer: Trainer, _module: LightningModule) -> None:
        """Draw the confusion matrix, the mistakes and a training batch."""
        if trainer.sanity_checking or not _writers(trainer):
            return
        self._draw_evaluation(trainer, "val")
        if self.batch:
            pixels, labels = (tensor[:MAX_IMAGES].cpu() for tensor in self.batch)
            names = [self.classes[label] for label in labels]
            _add_image(trainer, "train/batch", trainer.global_step - 1, draw_captioned(self.data, pixels, names))

    def on_test_end(self, trainer: Trainer, _module: LightningModule) -> None:
        """Draw the confusion matrix and the mistakes, and write the accuracy of each class."""
        if not _writers(trainer):
            return
        self._draw_evaluation(trainer, "test")
        counts = self.outputs.confusion()
        table = ["| class | accuracy | images |", "|---|---|---|"]
        for name, row, correct in zip(self.classes, counts, counts.diagonal(), strict=True):
            accuracy = f"{correct / row.sum():.2%}" if row.any() else "–"  # no image to test
            table.append(f"| {name} | {accuracy} | {row.sum():,} |")
        _write_text(trainer, "test/accuracy by class", "\n".join(table))

    def _draw_evaluation(self, trainer: Trainer, stage: str) -> None:
        step = trainer.global_step - (stage == "val")  # where Lightning logs the accuracy
        for name, picture in draw_evaluation(self.outputs, self.data, stage).items():
            _add_image(trainer, f"{stage}/{name}", step, picture)


def _writers(trainer: Trainer) -> "list[SummaryWriter]":
    """Return TensorBoard's writers, of which only the first process has any."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    return [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]


def _add_image(trainer: Trainer, tag: str, step: int, image: Image.Image) -> None:
    for writer in _writers(trainer):
        writer.add_image(tag, np.asarray(image), step, dataformats="HWC")
