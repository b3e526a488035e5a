"""What TensorBoard shows besides the curves: settings, pictures, the network, and the projector."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from shutil import rmtree
from textwrap import indent
from typing import TYPE_CHECKING, Any, cast
from warnings import catch_warnings

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.tensorboard.summary import hparams

from mnist_lit.classifier import DigitClassifier
from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.sampling import Batch
from mnist_lit.training.drawings import MAX_CLASSES, draw_confusion, draw_filters, draw_images, mistake_captions
from mnist_lit.training.evaluation import Outputs
from mnist_lit.training.inspection import first_filters, last_features

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardCallback", "write_summary"]

MAX_IMAGES = 32  # in a drawing
PROJECTED_IMAGES = 1_000
BATCH_SIZE = 100  # of the images projected
MAX_THUMBNAIL = 32  # pixels
COMPONENTS = 50  # all features of an image would be 30 kB of text
PROJECTOR = "projector"  # folder; torch would name it after the step
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
    """Write pictures at each validation, at the end of training and after the test.

    Args:
        outputs: outputs of the latest evaluation.
        classes: names of the classes.
        settings: settings by which TensorBoard compares runs.
        config: file of all settings.
    """

    def __init__(self, outputs: Outputs, classes: Sequence[str], settings: dict[str, Any], config: Path) -> None:
        self.outputs, self.classes, self.settings, self.config = outputs, classes, settings, config
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
            _add_images(trainer, "train/batch", trainer.global_step - 1, pixels, names)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the confusion matrix and the mistakes, and write the accuracy of each class and the projection."""
        if not _writers(trainer):
            return
        counts = self._draw_evaluation(trainer, "test")
        table = ["| class | accuracy | images |", "|---|---|---|"]
        for name, row, correct in zip(self.classes, counts, counts.diagonal(), strict=True):
            table.append(f"| {name} | {correct / row.sum().clamp(min=1):.2%} | {row.sum():,} |")
        _write_text(trainer, "test/accuracy by class", "\n".join(table))
        self._write_projection(trainer, cast("DigitClassifier", pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the first layer's filters and the graph, which would take too long at the start.

        Not at the end of training, which does not come for a run that is resumed where nothing is left to train.
        """
        network = deepcopy(cast("DigitClassifier", pl_module).network).cpu().eval()
        if (weight := first_filters(network)) is not None:
            _add_image(trainer, "train/filters", trainer.global_step, lambda: draw_filters(weight))
        elif _writers(trainer):
            pl_module.print("TensorBoard: no filters, the network does not begin with a convolution of 1 or 3 channels")
        for writer in _writers(trainer):
            _write_graph(writer, network, _datamodule(trainer).dataset.shape)

    def _draw_evaluation(self, trainer: Trainer, stage: str) -> Tensor:
        counts = self.outputs.confusion()
        step = trainer.global_step - (stage == "val")  # where Lightning logs the accuracy
        if len(self.classes) <= MAX_CLASSES:
            _add_image(trainer, f"{stage}/confusion", step, lambda: draw_confusion(counts, self.classes))
        data = _datamodule(trainer)
        images = data.test_set if stage == "test" else data.val_set
        indices, probabilities = self.outputs.mistakes(MAX_IMAGES)
        pixels, labels = cast("Batch", images.__getitems__(indices))
        captions = mistake_captions(labels, probabilities, self.classes)
        _add_images(trainer, f"{stage}/mistakes", step, pixels, captions)
        return counts

    def _write_projection(self, trainer: Trainer, classifier: DigitClassifier) -> None:
        """Write principal components of the first test images' features, in place of an earlier projection."""
        test_set = _datamodule(trainer).test_set
        pixels, labels = test_set.pixels[:PROJECTED_IMAGES], test_set.labels[:PROJECTED_IMAGES]
        names = [self.classes[label] for label in labels]
        for writer in _writers(trainer):
            folder = Path(writer.log_dir)
            rmtree(folder / PROJECTOR, ignore_errors=True)
            (folder / "projector_config.pbtxt").unlink(missing_ok=True)
            batches = torch.split(pixels.to(classifier.device), BATCH_SIZE)
            features = (
                torch.cat([last_features(classifier.network, batch) for batch in batches]).float().cpu()
            )  # (N, F)
            axes, lengths, _ = torch.pca_lowrank(features, min(COMPONENTS, *features.shape))  # (N, 50), (50,)
            thumbnails = interpolate(
                pixels / 255, size=[min(side, MAX_THUMBNAIL) for side in pixels.shape[2:]], mode="area"
            )
            if _datamodule(trainer).dataset.kind != "photographs":
                thumbnails = 1 - thumbnails
            square = (
                thumbnails if thumbnails.shape[2] == thumbnails.shape[3] else None
            )  # TensorBoard shows only square ones
            writer.add_embedding(axes * lengths, names, square, PROJECTOR, "test")


def _datamodule(trainer: Trainer) -> MNISTDataModule:
    return cast("MNISTDataModule", trainer.datamodule)  # type: ignore[attr-defined]


def _writers(trainer: Trainer) -> "list[SummaryWriter]":
    """Return TensorBoard's writers, of which only the first process has any."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    return [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]


def _add_image(trainer: Trainer, tag: str, step: int, draw: Callable[[], Image.Image]) -> None:
    """Add a picture, which is drawn only if there is a writer."""
    for writer in _writers(trainer):
        writer.add_image(tag, np.asarray(draw()), step, dataformats="HWC")


def _add_images(trainer: Trainer, tag: str, step: int, pixels: Tensor, captions: Sequence[str]) -> None:
    """Add images (N, C, H, W) with captions; drawings are inverted, photographs are not."""
    inverted = _datamodule(trainer).dataset.kind != "photographs"
    _add_image(trainer, tag, step, lambda: draw_images(pixels, captions, inverted=inverted))


def _write_graph(writer: "SummaryWriter", network: nn.Module, shape: Sequence[int]) -> None:
    try:
        with catch_warnings(action="ignore"):  # torch's, about how the graph is traced
            writer.add_graph(network, torch.zeros(1, *shape, dtype=torch.uint8))
    except Exception as error:  # noqa: BLE001  # tracing a network may raise anything
        print(f"TensorBoard: no graph, the network cannot be traced: {' '.join(str(error).split())[:200]}")
