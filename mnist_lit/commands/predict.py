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
from mnist_lit.datasets.sampling import InMemoryDataset, identity_collate
from mnist_lit.photos.images import crop_square
from mnist_lit.photos.preprocess import Prepare, as_mnist
from mnist_lit.runs.checkpoints import Checkpoint
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
    if restored.config.images:
        restored.require_same_images()
        _read(restored)
        return
    for flag in ("several", "save_seen"):
        if restored.config[flag]:
            raise UsageError(f"--{flag}: give pictures with --images")
    probabilities = _predict(restored, restored.data)
    names = restored.data.dataset.test_names or [str(number) for number in range(len(probabilities))]
    _write_csv(restored.output("predictions.csv"), restored.checkpoint.classes, names, probabilities)


def _predict(restored: Restored, data: Any) -> Tensor:
    batches = restored.build_trainer().predict(restored.classifier, data)
    return torch.cat(cast("list[Tensor]", batches))  # (N, K)


def _read(restored: Restored) -> None:
    """Read, classify and report pictures.

    Raises:
        UsageError: if the checkpoint classifies something else, or a folder is not empty.
        ValueError: at the end, if some of the pictures could not be read.
    """
    flags = restored.config
    if flags.several:
        _require_digits(restored.checkpoint)
        if flags.save_seen and Path(flags.save_seen).is_dir() and any(Path(flags.save_seen).iterdir()):
            raise UsageError(f"--save_seen: {flags.save_seen} is not empty: its digits would be mixed with these")
        digits, pictures = True, read_sheets(flags.images)
    else:
        prepare, shape = find_preprocessing(restored.checkpoint)
        digits, pictures = prepare is as_mnist, read_pictures(flags.images, prepare, shape)
    if pictures.names:
        _classify_pictures(restored, pictures, digits=digits)
    if pictures.failed:
        read = len(pictures.sheets) if flags.several else len(pictures.names)
        raise ValueError(f"{pictures.failed:,} of {pictures.failed + read:,} could not be read")


def _require_digits(checkpoint: Checkpoint) -> None:
    """Raise UsageError unless a checkpoint was trained on MNIST, or on a folder of digits like MNIST's."""
    name = checkpoint.settings["data"]["dataset"]
    images = tuple(checkpoint.shape), tuple(checkpoint.classes)
    if images != (MNIST.shape, tuple(MNIST.classes)) or (name in DATASETS and name != MNIST.name):
        kind = f"{len(checkpoint.classes)} classes of images {tuple(checkpoint.shape)}"
        raise UsageError(f"--several: the checkpoint classifies {name}, {kind}, not ten digits of {MNIST.shape}")


def _classify_pictures(restored: Restored, pictures: Pictures, *, digits: bool) -> None:
    flags, classes, output = restored.config, restored.checkpoint.classes, restored.output("predictions.csv")
    images = InMemoryDataset(pictures.pixels, torch.zeros(len(pictures.pixels)))
    probabilities = _predict(restored, DataLoader(images, flags.data.batch_size, collate_fn=identity_collate))
    if uncalibrated := restored.model.uncalibrated:
        print(uncalibrated)
    doubtful = probabilities.amax(dim=1) < MIN_CONFIDENCE
    novel = torch.zeros_like(doubtful)
    if digits:
        novel = NoveltyNetwork.load().novelty(pictures.pixels[: len(novel)]) >= MAX_NOVELTY
    seen = Path(flags.save_seen) if flags.save_seen else None
    if flags.several:
        answers = mark_unsure(pictures, probabilities, doubtful | novel)
        report_sheets(pictures, answers)
        boxes = np.concatenate([sheet.boxes for _, sheet in pictures.sheets])
        _write_csv(output, classes, pictures.names, probabilities, boxes)
        if seen:
            save_sheets(seen, pictures, answers)
        return
    report(pictures, probabilities, classes, doubtful, novel, draw=digits)
    _write_csv(output, classes, pictures.names, probabilities)
    if seen:
        save_seen(seen, pictures)


def find_preprocessing(checkpoint: Checkpoint) -> tuple[Prepare, Shape]:
    """Return how to preprocess a picture as the training images were, and the shape that it then has.

    Raises:
        UsageError: if the training images were no pictures, nor made of pictures in a known way.
    """
    name, shape = checkpoint.settings["data"]["dataset"], checkpoint.shape
    if name == MNIST.name:
        return as_mnist, MNIST.shape
    if not has_photographs(name):
        raise UsageError(f"the checkpoint classifies {name}: pictures can be prepared for digits and for photographs")
    channels, side, _ = shape
    return partial(crop_square, side=side, channels=channels), shape


def _write_csv(
    target: Path,
    classes: Sequence[str],
    names: Sequence[str],
    probabilities: Tensor,
    boxes: NDArray[np.int64] | None = None,
) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    digits = [*classes] == [str(number) for number in range(len(classes))]
    columns = [f"p{name}" if digits else f"p_{name}" for name in classes]
    places = [] if boxes is None else ["left", "top", "width", "height"]
    writer.writerow(["image", "digit" if digits else "class", "probability", *columns, *places])
    boxes = np.empty((len(names), 0), np.int64) if boxes is None else boxes
    for name, row, box in zip(names, probabilities, boxes, strict=False):  # fewer rows if the batches are limited
        formatted = (f"{float(p):.6f}" for p in (row.max(), *row))
        writer.writerow([name, classes[int(row.argmax())], *formatted, *box.tolist()])
    write_atomically(target, table.getvalue().encode(errors="surrogateescape"))
    print(f"{len(probabilities):,} images classified: {target}")
