"""Classify the test images, or your own pictures, with a checkpoint."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from mnist_lit.commands import require_room
from mnist_lit.commands.evaluate import Restored, restore
from mnist_lit.datasets.catalog import kind_of
from mnist_lit.datasets.photographs import Pictures, read_photographs
from mnist_lit.datasets.sampling import InMemoryDataset, identity_collate
from mnist_lit.system.errors import UsageError
from mnist_lit.system.files import write_atomically
from mnist_lit.system.output import say

__all__ = ["predict"]


def predict(argv: Sequence[str]) -> None:
    """Write a CSV file with the predicted class and probabilities of each test image, or of each picture given.

    Raises:
        UsageError: if a flag is wrong.
        ValueError: at the end, if some of the pictures could not be read.
    """
    restored = restore("predict", argv)
    flags = restored.config
    if not flags.images:
        for flag in ("several", "save_seen"):
            if flags[flag]:
                raise UsageError(f"--{flag}: give pictures with --images")
        probabilities = _predict(restored, restored.data)
        names = restored.data.dataset.test_names or [str(number) for number in range(len(probabilities))]
        _write_csv(restored, names, probabilities)
        return
    restored.require_same_images()
    restored.output("predictions.csv")  # refused before the pictures are read
    pictures = _read_pictures(restored)
    if pictures.names:
        images = InMemoryDataset(pictures.pixels, torch.zeros(len(pictures.pixels)))
        loader = DataLoader(images, flags.data.batch_size, collate_fn=identity_collate)
        probabilities = _predict(restored, loader)
        if uncalibrated := restored.model.uncalibrated:
            say(uncalibrated)
        pictures.report(probabilities, restored.checkpoint.classes)
        _write_csv(restored, pictures.names, probabilities, pictures.boxes)
        if flags.save_seen:
            pictures.save(Path(flags.save_seen), probabilities)
    if pictures.failed:
        raise ValueError(f"{pictures.failed:,} of {pictures.number:,} could not be read")


def _predict(restored: Restored, data: Any) -> Tensor:
    batches = restored.build_trainer().predict(restored.classifier, data)
    probabilities = torch.cat(cast("list[Tensor]", batches))  # (N, K)
    if not probabilities.isfinite().all():
        raise ValueError(f"{restored.checkpoint.path} gives probabilities that are not finite numbers")
    return probabilities


def _read_pictures(restored: Restored) -> Pictures:
    """Return pictures, preprocessed as the training images of a checkpoint were.

    Raises:
        UsageError: if these were drawings of another kind than digits.
    """
    flags, checkpoint = restored.config, restored.checkpoint
    dataset, shape = checkpoint.settings["data"]["dataset"], checkpoint.shape
    kind = kind_of(dataset)
    if flags.several or kind == "digits":
        require_room("reader", "--several" if flags.several else "predict --images of digits")
        from mnist_lit.reader import pictures as reader

        if flags.several:
            return reader.read_sheets(flags.images, flags.save_seen, dataset, checkpoint.classes, shape)
        return reader.read_digits(flags.images)
    if kind != "photographs":
        raise UsageError(f"the checkpoint classifies {dataset}: only digits and photographs can be read from pictures")
    channels, side, _ = shape
    return read_photographs(flags.images, channels, side)


def _write_csv(
    restored: Restored, names: Sequence[str], probabilities: Tensor, boxes: NDArray[np.int64] | None = None
) -> None:
    """Write the names and probabilities (N, K) of images and, if they are given, their boxes in a picture, (N, 4)."""
    target, classes = restored.output("predictions.csv"), restored.checkpoint.classes
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
    say(f"{len(probabilities):,} images classified: {target}")
