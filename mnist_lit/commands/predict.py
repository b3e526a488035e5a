"""Classify the test images, or your own pictures, with a checkpoint.

Pictures need no Lightning, whose import takes longer than all the rest. It is imported for flags of the model, the data
or the Trainer, and for checkpoints that only Lightning can load (see `Checkpoint.network`).
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from mnist_lit.commands.flags import parse_checkpoint_flags
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
from mnist_lit.datasets.catalog import DATASETS, MNIST, has_photographs
from mnist_lit.datasets.loading import InMemoryDataset, identity_collate
from mnist_lit.photos.images import crop_square
from mnist_lit.photos.preprocess import Prepare, as_mnist
from mnist_lit.runs.checkpoints import Checkpoint, find_output
from mnist_lit.runs.ensemble import average, choose_members, explain_calibration
from mnist_lit.runs.series import find_checkpoints
from mnist_lit.system.errors import UsageError
from mnist_lit.system.files import write_atomically
from mnist_lit.system.libraries import set_up_libraries

if TYPE_CHECKING:
    from mnist_lit.commands.restore import Restored

__all__ = ["MIN_CONFIDENCE", "find_preprocessing", "predict"]

Shape = tuple[int, ...]

BATCH_SIZE = 100
MIN_CONFIDENCE = 0.4
"""Probability of the predicted class below which it is marked as unsure. Real digits rarely have less; what is no digit
is marked by `NoveltyNetwork`."""


@dataclass(frozen=True)
class Reader:
    """What reads pictures: a checkpoint, or several, and how to classify with them."""

    checkpoint: Checkpoint
    """Of an ensemble, the first."""
    flags: Any
    """`images`, `several`, `save_seen`."""
    output: Path
    """The CSV file."""
    calibration: str | None
    """Why the probabilities are not calibrated, None if they are."""
    classify: Callable[[Tensor], Tensor]
    """Pixels uint8 (N, C, H, W), 0-255, to probabilities (N, K)."""


def predict(argv: Sequence[str]) -> None:
    """Write a CSV file with the predicted class and probabilities of each test image, or of each picture given.

    Raises:
        UsageError: if a flag is wrong.
        ValueError: at the end, if some of the pictures could not be read.
    """
    if reader := _open_reader(argv):
        _read(reader)
        return
    restored = _restore(argv)
    if restored.config.images:
        restored.require_same_images()
        _read(_as_reader(restored))
        return
    for flag in ("several", "save_seen"):
        if restored.config[flag]:
            raise UsageError(f"--{flag}: give pictures with --images")
    restored.check_test_set()
    probabilities = _predict(restored, restored.data)
    names = restored.data.dataset.test_names or [str(number) for number in range(len(probabilities))]
    _write_csv(restored.output("predictions.csv"), restored.checkpoint.classes, names, probabilities)


def _open_reader(argv: Sequence[str]) -> Reader | None:
    """Return a reader without Lightning, or None if it is needed."""
    flags = parse_checkpoint_flags("predict", argv)
    if flags is None or not flags.images:
        return None
    checkpoints = [Checkpoint.read_newest(path) for path in find_checkpoints(flags.ckpt_path, flags.experiment)]
    networks = {checkpoint.path: network for checkpoint in checkpoints if (network := checkpoint.network())}
    if any(checkpoint.path not in networks for checkpoint in checkpoints):
        return None
    members = choose_members(checkpoints)
    network = average([networks[member.path] for member in members])
    return Reader(
        checkpoint=members[0],
        flags=flags,
        output=find_output(flags.output, "predictions.csv", members),
        calibration=explain_calibration(network),
        classify=partial(network.classify, batch_size=BATCH_SIZE),
    )


def _restore(argv: Sequence[str]) -> "Restored":
    from mnist_lit.commands.restore import restore

    set_up_libraries()
    return restore("predict", argv)


def _as_reader(restored: "Restored") -> Reader:
    def classify(pixels: Tensor) -> Tensor:
        images = InMemoryDataset(pixels, torch.zeros(len(pixels)))
        return _predict(restored, DataLoader(images, restored.config.data.batch_size, collate_fn=identity_collate))

    return Reader(
        checkpoint=restored.checkpoint,
        flags=restored.config,
        output=restored.output("predictions.csv"),
        calibration=explain_calibration(restored.classifier),
        classify=classify,
    )


def _predict(restored: "Restored", data: Any) -> Tensor:
    batches = restored.trainer.predict(restored.classifier, data)
    return torch.cat(cast("list[Tensor]", batches))  # (N, K)


def _read(reader: Reader) -> None:
    """Read, classify and report pictures.

    Raises:
        UsageError: if the checkpoint classifies something else, or a folder is not empty.
        ValueError: at the end, if some of the pictures could not be read.
    """
    flags = reader.flags
    if flags.several:
        _require_digits(reader.checkpoint)
        if flags.save_seen and Path(flags.save_seen).is_dir() and any(Path(flags.save_seen).iterdir()):
            raise UsageError(f"--save_seen: {flags.save_seen} is not empty: its digits would be mixed with these")
        digits, pictures = True, read_sheets(flags.images)
    else:
        prepare, shape = find_preprocessing(reader.checkpoint)
        digits, pictures = prepare is as_mnist, read_pictures(flags.images, prepare, shape)
    if pictures.names:
        _classify_pictures(reader, pictures, digits=digits)
    if pictures.failed:
        read = len(pictures.sheets) if flags.several else len(pictures.names)
        raise ValueError(f"{pictures.failed:,} of {pictures.failed + read:,} could not be read")


def _require_digits(checkpoint: Checkpoint) -> None:
    """Raise UsageError if a checkpoint was trained on others than digits like MNIST's, or a folder of such digits."""
    name = checkpoint.settings["data"]["dataset"]
    images = tuple(checkpoint.shape), tuple(checkpoint.classes)
    if images != (MNIST.shape, tuple(MNIST.classes)) or (name in DATASETS and name != MNIST.name):
        kind = f"{len(checkpoint.classes)} classes of images {tuple(checkpoint.shape)}"
        raise UsageError(f"--several: the checkpoint classifies {name}, {kind}, not ten digits of {MNIST.shape}")


def _classify_pictures(reader: Reader, pictures: Pictures, *, digits: bool) -> None:
    classes, probabilities = reader.checkpoint.classes, reader.classify(pictures.pixels)
    if reader.calibration:
        print(reader.calibration)
    doubtful = probabilities.amax(dim=1) < MIN_CONFIDENCE
    novel = torch.zeros_like(doubtful)
    if digits:
        novel = NoveltyNetwork.load().novelty(pictures.pixels[: len(novel)]) >= MAX_NOVELTY
    seen = Path(reader.flags.save_seen) if reader.flags.save_seen else None
    if reader.flags.several:
        answers = mark_unsure(pictures, probabilities, doubtful | novel)
        report_sheets(pictures, answers)
        boxes = np.concatenate([sheet.boxes for _, sheet in pictures.sheets])
        _write_csv(reader.output, classes, pictures.names, probabilities, boxes)
        if seen:
            save_sheets(seen, pictures, answers)
        return
    report(pictures, probabilities, classes, doubtful, novel, draw=digits)
    _write_csv(reader.output, classes, pictures.names, probabilities)
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
