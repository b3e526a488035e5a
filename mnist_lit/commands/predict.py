"""Classify the test images, or your own pictures, with a checkpoint."""

import csv
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from mnist_lit.commands.restore import Restored, restore
from mnist_lit.datasets.catalog import MNIST, has_photographs
from mnist_lit.datasets.loading import InMemoryDataset, identity_collate
from mnist_lit.photos.images import Prepare, crop_square, find_images, prepare_images, to_image
from mnist_lit.photos.preprocess import as_mnist
from mnist_lit.system.errors import UsageError, printable
from mnist_lit.system.files import write_atomically
from mnist_lit.training.drawings import draw_braille

__all__ = ["find_preprocessing", "min_confidence", "predict"]

MAX_PRINTED = 0.9995  # probability
MAX_DRAWN = 100  # pictures drawn on a terminal
Shape = tuple[int, ...]
MAX_NAME_BYTES = 100  # of a picture's name in that of its preprocessed picture; file systems allow 143 to 255 in all


def predict(argv: Sequence[str]) -> None:
    """Write a CSV file with the predicted class and probabilities of each test image, or of each picture given.

    Raises:
        UsageError: if a flag is wrong.
        ValueError: at the end, if some of the pictures could not be read.
    """
    restored = restore("predict", argv)
    if not restored.config.images:
        restored.check_test_set()
        probabilities = _classify(restored, restored.data)
        names = restored.data.dataset.test_names or [str(number) for number in range(len(probabilities))]
        _write_csv(restored, names, probabilities)
        return
    names, pixels, failed = _preprocess(restored.config.images, *find_preprocessing(restored))
    if names:
        loader = DataLoader(
            InMemoryDataset(pixels, torch.zeros(len(names))),
            restored.config.data.batch_size,
            collate_fn=identity_collate,
        )
        probabilities = _classify(restored, loader)
        calibrated = bool(restored.classifier.temperature != 1)
        if not calibrated:
            print("trained without validation, or with too few images of it: the probabilities are not calibrated")
        _report(restored, names, pixels, probabilities, min_confidence(calibrated=calibrated))
        _write_csv(restored, names, probabilities)
        if restored.config.save_seen:
            _save_preprocessed(Path(restored.config.save_seen), names, pixels)
    if failed:
        raise ValueError(f"{failed:,} of {failed + len(names):,} could not be read")


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


def _preprocess(paths: Sequence[str], preprocess: Prepare, shape: Shape) -> tuple[list[str], Tensor, int]:
    """Return the names of the readable pictures, their preprocessed pixels (N, C, H, W), and the number of others."""
    failed = 0

    def on_error(name: str, reason: str) -> None:
        nonlocal failed
        failed += 1
        tqdm.write(f"error: {printable(name)}: {reason}", file=sys.stderr)

    files = list(find_images(paths, on_error))
    names: list[str] = []
    # Allocated at once: many small arrays, among the memory that decoding frees, would take ten times as much.
    pixels = torch.empty(len(files), *shape, dtype=torch.uint8)
    square, hidden = preprocess is not as_mnist, not sys.stdout.isatty()
    for name, result in zip(files, prepare_images(files, preprocess, for_square=square, disable=hidden), strict=True):
        if isinstance(result, ValueError):
            on_error(name, str(result))
        else:
            pixels[len(names)] = torch.from_numpy(result)
            names.append(name)
    return names, pixels[: len(names)], failed


def _report(
    restored: Restored, names: Sequence[str], pixels: Tensor, probabilities: Tensor, min_confidence: float
) -> None:
    """Print a line for each picture; on a terminal, with a drawing of each digit as it was preprocessed."""
    classes = [printable(name) for name in restored.checkpoint.classes]
    drawn = (
        sys.stdout.isatty()
        and len(names) <= MAX_DRAWN
        and not has_photographs(restored.checkpoint.settings["data"]["dataset"])
    )
    for name, picture, row in zip(names, pixels, probabilities, strict=False):
        best, second = row.topk(2).indices.tolist()
        confidence = f"{row[best]:.1%}" if row[best] < MAX_PRINTED else "over 99.9%"  # never 100%
        line = f"{printable(name)}: {classes[best]}, {confidence}"
        if row[best] < min_confidence:
            line += f" (unsure: or {classes[second]}, {row[second]:.1%})"
        if drawn:
            dots = draw_braille(picture[0])
            dots[len(dots) // 2] += f"  {line}"
            print(*dots, sep="\n")
        else:
            print(line)


def _save_preprocessed(folder: Path, names: Sequence[str], pixels: Tensor) -> None:
    """Save the preprocessed pictures, numbered as in the CSV file: two folders may have files of the same name."""
    for number, (name, picture) in enumerate(zip(names, pixels, strict=True)):
        content = io.BytesIO()
        to_image(picture.permute(1, 2, 0).numpy()).save(content, "PNG")
        stem = os.fsencode(Path(name).stem)[:MAX_NAME_BYTES].decode(errors="ignore")
        write_atomically(folder / f"{number:05}_{stem}.png", content.getvalue())
    print(f"preprocessed pictures: {folder}")


def _write_csv(restored: Restored, names: Sequence[str], probabilities: Tensor) -> None:
    target = restored.output("predictions.csv")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    classes = restored.checkpoint.classes
    digits = classes == [str(number) for number in range(len(classes))]
    columns = [f"p{name}" if digits else f"p_{name}" for name in classes]
    writer.writerow(["image", "digit" if digits else "class", "probability", *columns])
    for name, row in zip(names, probabilities, strict=False):  # fewer rows if the number of batches is limited
        writer.writerow([name, classes[int(row.argmax())], *(f"{float(p):.6f}" for p in (row.max(), *row))])
    write_atomically(target, table.getvalue().encode(errors="surrogateescape"))
    print(f"{len(probabilities):,} images classified: {target}")
