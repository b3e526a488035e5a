"""What a checkpoint reads: in the test images, or in a person's own pictures."""

import csv
import io
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from mnist_lit.commands.restore import Restored, restore
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.loading import InMemoryDataset, identity_collate
from mnist_lit.photos.images import find_images, open_image
from mnist_lit.photos.preprocess import as_mnist
from mnist_lit.system.errors import UsageError, printable
from mnist_lit.system.files import write_atomically
from mnist_lit.training.drawings import draw_braille

__all__ = ["predict"]

MIN_CONFIDENCE, MIN_CONFIDENCE_UNCALIBRATED = 0.9, 0.5
"""Probability of the classified digit below which it is marked as unsure."""
MAX_PRINTED = 0.9995  # probability
CHUNK = 64  # files, for which a signal waits
MAX_DRAWN = 100  # pictures drawn on a terminal
MAX_NAME_BYTES = 100  # of a picture's name in that of its preprocessed picture; file systems allow 143 to 255 in all


def predict(argv: Sequence[str]) -> None:
    """Write a CSV file with what a checkpoint reads in every test image, or in image files.

    Raises:
        UsageError: if a flag is wrong.
        ValueError: at the end, if some of the image files could not be read.
    """
    restored = restore("predict", argv)
    if not restored.config.images:
        probabilities = _probabilities(restored, restored.data)
        _write(restored, [str(number) for number in range(len(probabilities))], probabilities)
        return
    if (name := restored.data.dataset.name) != MNIST.name:
        raise UsageError(f"--images: the checkpoint classifies {name}, not digits")
    names, pixels, failed = _read(restored.config.images)
    if names:
        loader = DataLoader(
            InMemoryDataset(pixels, torch.zeros(len(names))), restored.data.batch_size, collate_fn=identity_collate
        )
        probabilities = _probabilities(restored, loader)
        calibrated = restored.classifier.temperature != 1
        if not calibrated:
            print("trained without validation, so the probabilities are as the network gives them: not calibrated")
        _report(names, pixels, probabilities, MIN_CONFIDENCE if calibrated else MIN_CONFIDENCE_UNCALIBRATED)
        _write(restored, names, probabilities)
        if restored.config.save_seen:
            _save(Path(restored.config.save_seen), names, pixels)
    if failed:
        raise ValueError(f"{failed:,} of {failed + len(names):,} could not be read")


def _probabilities(restored: Restored, data: Any) -> Tensor:
    batches = restored.trainer.predict(restored.classifier, data)
    return torch.cat(cast("list[Tensor]", batches))  # (N, 10)


def _read(paths: Sequence[str]) -> tuple[list[str], Tensor, int]:
    """Return the names and pixels (N, 1, 28, 28) of the digits that can be read, and how many files could not be."""
    failed = 0

    def complain(name: str, reason: str) -> None:
        nonlocal failed
        failed += 1
        tqdm.write(f"error: {printable(name)}: {reason}", file=sys.stderr)

    files = list(find_images(paths, complain))
    names: list[str] = []
    # In one place: scattered among what decoding frees, they would take ten times as much memory.
    digits = torch.empty(len(files), *MNIST.shape, dtype=torch.uint8)
    # Much of decoding and filtering runs outside of Python's lock.
    with (
        ThreadPoolExecutor(os.cpu_count()) as threads,
        tqdm(total=len(files), disable=not sys.stdout.isatty(), leave=False) as bar,
    ):
        for first in range(0, len(files), CHUNK):
            some = files[first : first + CHUNK]
            for name, read in zip(some, threads.map(_attempt, some), strict=True):
                bar.update()
                if isinstance(read, ValueError):
                    complain(name, str(read))
                else:
                    digits[len(names), 0] = torch.from_numpy(read)
                    names.append(name)
    return names, digits[: len(names)], failed


def _attempt(name: str) -> NDArray[np.uint8] | ValueError:
    try:
        return as_mnist(open_image(name))
    except ValueError as error:
        return error


def _report(names: Sequence[str], pixels: Tensor, probabilities: Tensor, least: float) -> None:
    """Print a line for each picture; on a terminal, beside a drawing of what the network saw."""
    drawn = sys.stdout.isatty() and len(names) <= MAX_DRAWN
    for name, digit, row in zip(names, pixels, probabilities, strict=False):
        best, second = row.topk(2).indices.tolist()
        sure = f"{row[best]:.1%}" if row[best] < MAX_PRINTED else "over 99.9%"  # never certain
        line = f"{printable(name)}: {best}, {sure}"
        if row[best] < least:
            line += f" (unsure: or a {second}, {row[second]:.1%})"
        if drawn:
            dots = draw_braille(digit[0])
            dots[len(dots) // 2] += f"  {line}"
            print(*dots, sep="\n")
        else:
            print(line)


def _save(folder: Path, names: Sequence[str], pixels: Tensor) -> None:
    """Save what the network saw, numbered in the order of the table: two folders may have files of one name."""
    for number, (name, digit) in enumerate(zip(names, pixels, strict=True)):
        content = io.BytesIO()
        Image.fromarray(digit[0].numpy()).save(content, "PNG")
        short = os.fsencode(Path(name).stem)[:MAX_NAME_BYTES].decode(errors="ignore")
        write_atomically(folder / f"{number:05}_{short}.png", content.getvalue())
    print(f"what the network saw: {folder}")


def _write(restored: Restored, names: Sequence[str], probabilities: Tensor) -> None:
    target = restored.output("predictions.csv")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "digit", "probability", *(f"p{digit}" for digit in range(probabilities.shape[1]))])
    for name, row in zip(names, probabilities, strict=False):  # fewer, if a limit of batches was given
        writer.writerow([name, int(row.argmax()), *(f"{float(p):.6f}" for p in (row.max(), *row))])
    write_atomically(target, table.getvalue().encode(errors="surrogateescape"))
    print(f"{len(probabilities):,} images read: {target}")
