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

from mnist_lit.commands.ensemble import explain_calibration
from mnist_lit.commands.novelty import MAX_NOVELTY, NoveltyNetwork
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
from mnist_lit.datasets.catalog import DATASETS, MNIST, has_photographs
from mnist_lit.datasets.loading import InMemoryDataset, identity_collate
from mnist_lit.photos.images import crop_square
from mnist_lit.photos.preprocess import Prepare, as_mnist
from mnist_lit.system.errors import UsageError
from mnist_lit.system.files import write_atomically

__all__ = ["MIN_CONFIDENCE", "find_preprocessing", "predict"]

Shape = tuple[int, ...]

MIN_CONFIDENCE = 0.4
"""Probability of the predicted class below which it is marked as unsure. Real digits rarely have less; what is no digit
is marked by `NoveltyNetwork`."""


def predict(argv: Sequence[str]) -> None:
    """Write a CSV file with the predicted class and probabilities of each test image, or of each picture given.

    Raises:
        UsageError: if a flag is wrong.
        ValueError: at the end, if some of the pictures could not be read.
    """
    restored = restore("predict", argv)
    config = restored.config
    if not config.images:
        for flag in ("several", "save_seen"):
            if config[flag]:
                raise UsageError(f"--{flag}: give pictures with --images")
        restored.check_test_set()
        probabilities = _classify(restored, restored.data)
        names = restored.data.dataset.test_names or [str(number) for number in range(len(probabilities))]
        _write_csv(restored, names, probabilities)
        return
    if config.several:
        _require_digits(restored)
        if config.save_seen and Path(config.save_seen).is_dir() and any(Path(config.save_seen).iterdir()):
            raise UsageError(f"--save_seen: {config.save_seen} is not empty: its digits would be mixed with these")
        digits, pictures = True, read_sheets(config.images)
    else:
        prepare, shape = find_preprocessing(restored)
        digits, pictures = prepare is as_mnist, read_pictures(config.images, prepare, shape)
    if pictures.names:
        _classify_pictures(restored, pictures, digits=digits)
    if pictures.failed:
        read = len(pictures.sheets) if config.several else len(pictures.names)
        raise ValueError(f"{pictures.failed:,} of {pictures.failed + read:,} could not be read")


def _require_digits(restored: Restored) -> None:
    """Raise UsageError if a checkpoint was trained on others than digits like MNIST's, or a folder of such digits."""
    _require_same_images(restored)
    checkpoint, name = restored.checkpoint, restored.checkpoint.settings["data"]["dataset"]
    images = tuple(checkpoint.shape), tuple(checkpoint.classes)
    if images != (MNIST.shape, tuple(MNIST.classes)) or (name in DATASETS and name != MNIST.name):
        kind = f"{len(checkpoint.classes)} classes of images {tuple(checkpoint.shape)}"
        raise UsageError(f"--several: the checkpoint classifies {name}, {kind}, not ten digits of {MNIST.shape}")


def _classify_pictures(restored: Restored, pictures: Pictures, *, digits: bool) -> None:
    loader = DataLoader(
        InMemoryDataset(pictures.pixels, torch.zeros(len(pictures.names))),
        restored.config.data.batch_size,
        collate_fn=identity_collate,
    )
    probabilities = _classify(restored, loader)
    if reason := explain_calibration(restored.classifier):
        print(reason)
    doubtful = probabilities.amax(dim=1) < MIN_CONFIDENCE
    novel = torch.zeros_like(doubtful)
    if digits:
        novel = NoveltyNetwork.load().novelty(pictures.pixels[: len(novel)]) >= MAX_NOVELTY
    seen = Path(restored.config.save_seen) if restored.config.save_seen else None
    if restored.config.several:
        answers = mark_unsure(pictures, probabilities, doubtful | novel)
        report_sheets(pictures, answers)
        _write_csv(
            restored, pictures.names, probabilities, np.concatenate([sheet.boxes for _, sheet in pictures.sheets])
        )
        if seen:
            save_sheets(seen, pictures, answers)
        return
    report(pictures, probabilities, restored.checkpoint.classes, doubtful, novel, draw=digits)
    _write_csv(restored, pictures.names, probabilities)
    if seen:
        save_seen(seen, pictures)


def _classify(restored: Restored, data: Any) -> Tensor:
    batches = restored.trainer.predict(restored.classifier, data)
    return torch.cat(cast("list[Tensor]", batches))  # (N, K)


def find_preprocessing(restored: Restored) -> tuple[Prepare, Shape]:
    """Return how to preprocess a picture as the training images were, and the shape that it then has.

    Raises:
        UsageError: if the training images were no pictures, nor made of pictures in a known way.
    """
    _require_same_images(restored)
    name, shape = restored.checkpoint.settings["data"]["dataset"], restored.checkpoint.shape
    if name == MNIST.name:
        return as_mnist, MNIST.shape
    if not has_photographs(name):
        raise UsageError(f"the checkpoint classifies {name}: pictures can be prepared for digits and for photographs")
    channels, side, _ = shape
    return partial(crop_square, side=side, channels=channels), shape


def _require_same_images(restored: Restored) -> None:
    for setting in ("dataset", "image_size"):
        if restored.config.data[setting] != restored.checkpoint.settings["data"].get(setting):
            raise UsageError(f"--data.{setting}: pictures are prepared as in the training of the checkpoint")


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
