"""Classify the test images, or your own pictures, with a checkpoint."""

import csv
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from mnist_lit.commands.pictures import (
    Pictures,
    mark_unsure,
    read_pictures,
    read_sheets,
    report,
    report_sheets,
    save_seen,
    save_sheets,
)
from mnist_lit.commands.restore import Restored, restore
from mnist_lit.datasets.catalog import MNIST, has_photographs
from mnist_lit.datasets.loading import InMemoryDataset, identity_collate
from mnist_lit.photos.images import crop_square
from mnist_lit.photos.preprocess import Prepare, as_mnist
from mnist_lit.system.errors import UsageError
from mnist_lit.system.files import write_atomically

__all__ = ["find_preprocessing", "min_confidence", "predict"]

Shape = tuple[int, ...]


def predict(argv: Sequence[str]) -> None:
    """Write a CSV file with the predicted class and probabilities of each test image, or of each picture given.

    Raises:
        UsageError: if a flag is wrong.
        ValueError: at the end, if some of the pictures could not be read.
    """
    restored = restore("predict", argv)
    config = restored.config
    if not config.images:
        if config.several:
            raise UsageError("--several: give pictures with --images")
        restored.check_test_set()
        probabilities = _classify(restored, restored.data)
        names = restored.data.dataset.test_names or [str(number) for number in range(len(probabilities))]
        _write_csv(restored, names, probabilities)
        return
    prepare, shape = find_preprocessing(restored)
    if config.several and prepare is not as_mnist:
        name = restored.checkpoint.settings["data"]["dataset"]
        raise UsageError(f"--several: the checkpoint classifies {name}, not digits")
    pictures = read_sheets(config.images) if config.several else read_pictures(config.images, prepare, shape)
    if pictures.names:
        _classify_pictures(restored, pictures, draw=prepare is as_mnist)
    if pictures.failed:
        read = len(pictures.sheets) if config.several else len(pictures.names)
        raise ValueError(f"{pictures.failed:,} of {pictures.failed + read:,} could not be read")


def _classify_pictures(restored: Restored, pictures: Pictures, *, draw: bool) -> None:
    loader = DataLoader(
        InMemoryDataset(pictures.pixels, torch.zeros(len(pictures.names))),
        restored.config.data.batch_size,
        collate_fn=identity_collate,
    )
    probabilities = _classify(restored, loader)
    calibrated = bool(restored.classifier.temperature != 1)
    if not calibrated:
        print("trained without validation, or with too few images of it: the probabilities are not calibrated")
    least = min_confidence(calibrated=calibrated)
    seen = Path(restored.config.save_seen) if restored.config.save_seen else None
    if restored.config.several:
        answers = mark_unsure(pictures, probabilities, least)
        report_sheets(pictures, answers)
        _write_csv(
            restored, pictures.names, probabilities, np.concatenate([sheet.boxes for _, sheet in pictures.sheets])
        )
        if seen:
            save_sheets(seen, pictures, answers)
        return
    report(pictures, probabilities, restored.checkpoint.classes, least, draw=draw)
    _write_csv(restored, pictures.names, probabilities)
    if seen:
        save_seen(seen, pictures)


def min_confidence(*, calibrated: bool) -> float:
    """Return the probability of the predicted class below which it is marked as unsure."""
    return 0.9 if calibrated else 0.5


def _classify(restored: Restored, data: Any) -> Tensor:
    batches = restored.trainer.predict(restored.classifier, data)
    return torch.cat(cast("list[Tensor]", batches))  # (N, K)


def find_preprocessing(restored: Restored) -> tuple[Prepare, Shape]:
    """Return how to preprocess a picture as the training images were, and the shape that it then has.

    Raises:
        UsageError: if the training images were no pictures, nor made of pictures in a known way.
    """
    name, shape = restored.checkpoint.settings["data"]["dataset"], restored.checkpoint.shape
    for setting in ("dataset", "image_size"):
        if restored.config.data[setting] != restored.checkpoint.settings["data"].get(setting):
            raise UsageError(f"--data.{setting}: pictures are prepared as in the training of the checkpoint")
    if name == MNIST.name:
        return as_mnist, MNIST.shape
    if not has_photographs(name):
        raise UsageError(f"the checkpoint classifies {name}: pictures can be prepared for digits and for photographs")
    channels, side, _ = shape
    return partial(crop_square, side=side, channels=channels), shape


def _write_csv(
    restored: Restored, names: Sequence[str], probabilities: Tensor, boxes: NDArray[np.int64] | None = None
) -> None:
    target = restored.output("predictions.csv")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    classes = restored.checkpoint.classes
    digits = classes == [str(number) for number in range(len(classes))]
    columns = [f"p{name}" if digits else f"p_{name}" for name in classes]
    places = [] if boxes is None else ["left", "top", "width", "height"]
    writer.writerow(["image", "digit" if digits else "class", "probability", *columns, *places])
    boxes = np.empty((len(names), 0), np.int64) if boxes is None else boxes
    for name, row, box in zip(names, probabilities, boxes, strict=False):  # fewer rows if the batches are limited
        formatted = (f"{float(p):.6f}" for p in (row.max(), *row))
        writer.writerow([name, classes[int(row.argmax())], *formatted, *box.tolist()])
    write_atomically(target, table.getvalue().encode(errors="surrogateescape"))
    print(f"{len(probabilities):,} images classified: {target}")
