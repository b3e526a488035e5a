"""What TensorBoard shows besides the curves: settings, charts, texts and pictures."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.sampling import Batch
from mnist_lit.training.drawings import MAX_CLASSES, draw_confusion, draw_images, mistake_captions
from mnist_lit.training.evaluation import Outputs

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardCallback", "write_summary"]

MAX_IMAGES = 32  # in a drawing
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
            self._add_images(trainer, "train/batch", trainer.global_step - 1, pixels, names)

    def on_test_end(self, trainer: Trainer, _module: LightningModule) -> None:
        """Draw the confusion matrix and the mistakes, and write the accuracy of each class."""
        if not _writers(trainer):
            return
        counts = self._draw_evaluation(trainer, "test")
        table = ["| class | accuracy | images |", "|---|---|---|"]
        for name, row, correct in zip(self.classes, counts, counts.diagonal(), strict=True):
            accuracy = f"{correct / row.sum():.2%}" if row.any() else "–"  # no image to test
            table.append(f"| {name} | {accuracy} | {row.sum():,} |")
        _write_text(trainer, "test/accuracy by class", "\n".join(table))

    def _draw_evaluation(self, trainer: Trainer, stage: str) -> Tensor:
        counts = self.outputs.confusion()
        step = trainer.global_step - (stage == "val")  # where Lightning logs the accuracy
        if len(self.classes) <= MAX_CLASSES:
            _add_image(trainer, f"{stage}/confusion", step, draw_confusion(counts, self.classes))
        images = self.data.test_set if stage == "test" else self.data.val_set
        indices, probabilities = self.outputs.mistakes(MAX_IMAGES)
        pixels, labels = cast("Batch", images.__getitems__(indices))
        captions = mistake_captions(labels, probabilities, self.classes)
        self._add_images(trainer, f"{stage}/mistakes", step, pixels, captions)
        return counts

    def _add_images(self, trainer: Trainer, tag: str, step: int, pixels: Tensor, captions: Sequence[str]) -> None:
        """Add images (N, C, H, W) with captions; drawings are inverted, photographs are not."""
        inverted = self.data.dataset.kind != "photographs"
        _add_image(trainer, tag, step, draw_images(pixels, captions, inverted=inverted))


def _writers(trainer: Trainer) -> "list[SummaryWriter]":
    """Return TensorBoard's writers, of which only the first process has any."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    return [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]


def _add_image(trainer: Trainer, tag: str, step: int, image: Image.Image) -> None:
    for writer in _writers(trainer):
        writer.add_image(tag, np.asarray(image), step, dataformats="HWC")
