"""Classify the test images, or your own pictures, with a checkpoint."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jsonargparse import Namespace
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from mnist_lit.commands import has_room, require_room
from mnist_lit.commands.evaluate import Restored, check_output, restore
from mnist_lit.commands.flags import build_parser, find_flags, parse
from mnist_lit.datasets.catalog import MNIST, kind_of
from mnist_lit.datasets.photographs import Pictures, read_photographs
from mnist_lit.datasets.sampling import InMemoryDataset, identity_collate
from mnist_lit.runs.folders import ROOT
from mnist_lit.system.errors import UsageError
from mnist_lit.system.files import write_atomically
from mnist_lit.system.output import say

__all__ = ["predict"]


class Network(NamedTuple):
    """A network that classifies pictures, and the images that it was trained on."""

    classify: Callable[[Tensor], Tensor]
    """Maps pixels 0-255, uint8 (N, C, H, W), to probabilities (N, K)."""
    dataset: str
    """Name of the data set."""
    shape: Sequence[int]
    """Shape of its images, (C, H, W)."""
    classes: Sequence[str]
    """Names of its classes."""


def predict(argv: Sequence[str]) -> None:
    """Write a CSV file with the predicted class and probabilities of each test image, or of each picture given.

    Where there is no run, pictures of digits are classified by the trained network of the package.

    Raises:
        UsageError: if a flag is wrong.
        OSError, ValueError: if there is no checkpoint that can be used, or at the end, if pictures could not be read.
    """
    try:
        restored = restore("predict", argv)
    except FileNotFoundError:
        if not has_room("reader") or find_flags(argv, "ckpt_path", "experiment"):
            raise
        flags = parse(parser := build_parser("predict"), argv)
        if not flags.images:
            raise
        _predict_without_run(flags, parser.get_defaults())
        return
    flags, checkpoint = restored.config, restored.checkpoint
    target = restored.output("predictions.csv")  # refused before the pictures are read
    if not flags.images:
        for flag in ("several", "save_seen"):
            if flags[flag]:
                raise UsageError(f"--{flag}: give pictures with --images")
        probabilities = _predict(restored, restored.data)
        names = restored.data.dataset.test_names or [str(number) for number in range(len(probabilities))]
        _write_csv(target, checkpoint.classes, names, probabilities)
        return
    restored.require_same_images()

    def classify(pixels: Tensor) -> Tensor:
        batches = DataLoader(InMemoryDataset(pixels), flags.data.batch_size, collate_fn=identity_collate)
        probabilities = _predict(restored, batches)
        if uncalibrated := restored.model.uncalibrated:
            say(uncalibrated)
        return probabilities

    dataset = checkpoint.settings["data"]["dataset"]
    _predict_pictures(flags, target, Network(classify, dataset, checkpoint.shape, checkpoint.classes))


def _predict_without_run(flags: Namespace, defaults: Namespace) -> None:
    """Classify pictures of digits with the trained network of the package.

    Raises:
        UsageError: if a flag is given that needs a checkpoint.
    """
    from mnist_lit.reader.trained import CARD, load_trained

    for name, value in flags.items():
        if name not in {"config", "images", "several", "save_seen", "output"} and value != defaults.get(name):
            raise UsageError(f"--{name} needs a checkpoint, and there is none in {ROOT}: train one with fit")
    target = check_output(flags.output or "predictions.csv", flags)
    say(f"no checkpoint in {ROOT.absolute()}: read as handwritten digits by the network of the package, see {CARD}")
    _predict_pictures(flags, target, Network(load_trained(), MNIST.name, MNIST.shape, MNIST.classes))


def _predict(restored: Restored, data: Any) -> Tensor:
    batches = restored.build_trainer().predict(restored.classifier, data)
    probabilities = torch.cat(cast("list[Tensor]", batches))  # (N, K)
    if not probabilities.isfinite().all():
        raise ValueError(f"{restored.checkpoint.path} gives probabilities that are not finite numbers")
    return probabilities


def _predict_pictures(flags: Namespace, target: Path, network: Network) -> None:
    pictures = _read_pictures(flags, network)
    if pictures.names:
        probabilities = network.classify(pictures.pixels)
        pictures.report(probabilities, network.classes)
        _write_csv(target, network.classes, pictures.names, probabilities, pictures.boxes)
        if flags.save_seen:
            pictures.save(Path(flags.save_seen), probabilities)
    if pictures.failed:
        raise ValueError(f"{pictures.failed:,} of {pictures.number:,} pictures could not be read: see the errors above")


def _read_pictures(flags: Namespace, network: Network) -> Pictures:
    """Return pictures, preprocessed as the training images of a network were.

    Raises:
        UsageError: if the network was trained on drawings other than digits.
    """
    kind = kind_of(network.dataset)
    if flags.several or kind == "digits":
        require_room("reader", "--several" if flags.several else "predict --images of digits")
        from mnist_lit.reader import pictures as reader

        if flags.several:
            return reader.read_sheets(flags.images, flags.save_seen, network.dataset, network.classes, network.shape)
        return reader.read_digits(flags.images)
    if kind != "photographs":
        trained = network.dataset
        raise UsageError(f"the checkpoint classifies {trained}: only digits and photographs can be read from pictures")
    channels, side, _ = network.shape
    return read_photographs(flags.images, channels, side, flags.data.fit)


def _write_csv(
    target: Path,
    classes: Sequence[str],
    names: Sequence[str],
    probabilities: Tensor,
    boxes: NDArray[np.int64] | None = None,
) -> None:
    """Write the names and probabilities (N, K) of images and, if they are given, their boxes in a picture, (N, 4)."""
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
