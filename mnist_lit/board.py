"""What TensorBoard shows of a run besides its curves: settings, pictures, and the mistakes above all."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any, cast
from warnings import catch_warnings

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from mnist_lit.classifier import DigitClassifier
from mnist_lit.mistakes import Mistakes
from mnist_lit.model import SIDE, Batch
from mnist_lit.pictures import draw_confusion, draw_digits, draw_filters, mistake_captions
from mnist_lit.projector import write_projection

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from mnist_lit.data import MNISTDataModule

__all__ = ["Board", "write_text"]

MOST = 32  # pictures of digits in one drawing
PROJECTED = 1_000
METRICS = ("val/accuracy", "test/accuracy")
CHARTS = {
    "training and validation": {name: ["Multiline", [f"train/{name}", f"val/{name}"]] for name in ("loss", "accuracy")}
}


def write_text(trainer: Trainer, tag: str, text: str) -> None:
    """Write Markdown to the run's TensorBoard logs."""
    for writer in _writers(trainer):
        writer.add_text(tag, text, trainer.global_step)


class Board(Callback):
    """Draw at each validation, at the end of training and after the test.

    Args:
        classes: names of the ten classes.
        settings: what the run can be compared by.
        config: file with all settings.
    """

    def __init__(self, classes: Sequence[str], settings: dict[str, Any], config: Path) -> None:
        self.classes, self.settings, self.config = classes, settings, config
        self.sample: Batch | None = None

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Write what is known of a run at its start."""
        plain = {name: v if isinstance(v, bool | int | float | str) else str(v) for name, v in self.settings.items()}
        for writer in _writers(trainer):
            writer.add_custom_scalars(CHARTS)
            for summary in hparams(plain, dict.fromkeys(METRICS, 0)):  # type: ignore[no-untyped-call]
                writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]
            code = indent(self.config.read_text(encoding="utf-8"), "    ")  # which Markdown shows as it is
            writer.add_text("config", code, trainer.global_step)

    def on_train_batch_end(
        self, _trainer: Trainer, _module: LightningModule, _outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Keep the latest batch, as the network got it."""
        self.sample = batch

    def on_validation_epoch_start(self, *_: Any) -> None:
        """Start to look for mistakes."""
        self.mistakes = Mistakes()

    def on_test_epoch_start(self, *_: Any) -> None:
        """Start to look for mistakes."""
        self.mistakes = Mistakes()

    def on_validation_batch_end(
        self, _trainer: Trainer, _module: LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Keep the images that are read wrong, with their labels and probabilities."""
        self.mistakes.add(*batch, cast("Tensor", outputs))

    def on_test_batch_end(self, *args: Any) -> None:
        """Keep them likewise."""
        self.on_validation_batch_end(*args)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the confusion matrix, the mistakes, and what training images look like."""
        if trainer.sanity_checking:
            return
        self._draw_evaluation(trainer, pl_module, "val")
        if self.sample:
            pixels, labels = (part[:MOST].cpu() for part in self.sample)
            names = [self.classes[label] for label in labels]
            _add(trainer, "train/batch", trainer.global_step - 1, lambda: draw_digits(pixels, names))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the same of the test set, and lay out its first images by what the network makes of them."""
        counts = self._draw_evaluation(trainer, pl_module, "test")
        table = ["| class | accuracy | images |", "|---|---|---|"]
        for name, row, right in zip(self.classes, counts, counts.diagonal(), strict=True):
            table.append(f"| {name} | {right / row.sum().clamp(min=1):.2%} | {row.sum():,} |")
        write_text(trainer, "test/accuracy by class", "\n".join(table))
        self._project(trainer, cast("DigitClassifier", pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the first layer's filters, and the network, which takes too long to do at the start.

        The end of training would not come for a run that is resumed where nothing is left to train.
        """
        network = deepcopy(cast("DigitClassifier", pl_module).network).cpu().eval()
        weight = next(network.parameters()).detach()
        _add(trainer, "train/filters", trainer.global_step, lambda: draw_filters(weight))
        for writer in _writers(trainer):
            with catch_warnings(action="ignore"):  # torch's, about how TensorBoard's graphs are made
                writer.add_graph(network, torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8))

    def _draw_evaluation(self, trainer: Trainer, module: LightningModule, stage: str) -> Tensor:
        counts = cast("DigitClassifier", module).confusion.compute().cpu()  # of all processes
        step = trainer.global_step - (stage == "val")  # where Lightning logs the accuracy
        _add(trainer, f"{stage}/confusion", step, lambda: draw_confusion(counts, self.classes))
        pixels, labels, probabilities = self.mistakes.worst(MOST)
        captions = mistake_captions(labels, probabilities, self.classes)
        _add(trainer, f"{stage}/mistakes", step, lambda: draw_digits(pixels, captions))
        return counts

    def _project(self, trainer: Trainer, classifier: DigitClassifier) -> None:
        """Write the first test images' last features for the projector."""
        test_set = cast("MNISTDataModule", trainer.datamodule).test_set  # type: ignore[attr-defined]
        pixels, labels = test_set.pixels[:PROJECTED], test_set.labels[:PROJECTED]
        names = [self.classes[label] for label in labels]
        for writer in _writers(trainer):
            features = classifier.network.features(pixels.to(classifier.device)).cpu()  # (N, F)
            write_projection(writer, features, names, pixels)


def _writers(trainer: Trainer) -> "list[SummaryWriter]":
    """Return TensorBoard's writers, of which only the first process has any."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    return [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]


def _add(trainer: Trainer, tag: str, step: int, draw: Callable[[], Image.Image]) -> None:
    """Add a picture, which is not even drawn where nobody would see it."""
    for writer in _writers(trainer):
        writer.add_image(tag, np.asarray(draw()), step, dataformats="HWC")
