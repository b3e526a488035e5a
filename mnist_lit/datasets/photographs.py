"""A person's own pictures: read for a network, reported with its answers, and saved as the network sees them."""

import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from tqdm import tqdm

from mnist_lit.datasets.dataset import Fit
from mnist_lit.datasets.images import describe_unread, find_images, open_square, read_images, to_image
from mnist_lit.system.errors import printable
from mnist_lit.system.files import write_atomically
from mnist_lit.system.output import say

__all__ = [
    "MIN_CONFIDENCE",
    "Errors",
    "Pictures",
    "format_answer",
    "list_pictures",
    "read_photographs",
    "readable",
    "save_image",
    "stem",
]

Result = TypeVar("Result")

MIN_CONFIDENCE = 0.4
"""The probability of the predicted class below which an answer is marked as unsure. Real digits rarely have less."""
MAX_PRINTED = 0.9995  # probability
MAX_NAME_BYTES = 100  # of a picture's name in that of its preprocessed picture; file systems allow 143 to 255 in all


@dataclass
class Pictures:
    """The pictures that could be read, preprocessed.

    Args:
        names: for each image that the network gets, the file of its picture.
        pixels: images, uint8 (N, C, H, W), 0-255.
        failed: number of pictures that could not be read; the reasons have been printed.
        number: number of pictures that were given.
        boxes: left, top, width and height of each image in its picture, in pixels, (N, 4), or None where an image is
            a whole picture.
    """

    names: list[str]
    pixels: Tensor
    failed: int
    number: int
    boxes: NDArray[np.int64] | None = None

    @classmethod
    def read(cls, paths: Sequence[str], read: Callable[[str], NDArray[np.uint8]], shape: Sequence[int]) -> Self:
        """Read pictures of one object each: `read` opens a file and prepares its pixels, (C, H, W)."""
        errors = Errors()
        files = list_pictures(paths, errors)
        names: list[str] = []
        # Allocated at once: many small arrays, among the memory that decoding frees, would take ten times as much.
        pixels = torch.empty(len(files), *shape, dtype=torch.uint8)
        for name, picture in readable(files, read, errors):
            pixels[len(names)] = torch.from_numpy(picture)
            names.append(name)
        return cls(names, pixels[: len(names)], errors.number, errors.number + len(names))

    def report(self, probabilities: Tensor, classes: Sequence[str]) -> None:
        """Print a line for each picture, given the probabilities (N, K) of the K classes."""
        for name, row in zip(self.names, probabilities, strict=False):
            say(format_answer(name, row, classes))

    def save(self, folder: Path, _probabilities: Tensor) -> None:
        """Save the preprocessed pictures, numbered as in the CSV file: two folders may have files of the same name."""
        for number, (name, picture) in enumerate(zip(self.names, self.pixels, strict=True)):
            save_image(folder / f"{number:05}_{stem(name)}.png", to_image(picture.permute(1, 2, 0).numpy()))
        say(f"preprocessed pictures: {folder}")


def read_photographs(paths: Sequence[str], channels: int, side: int, fit: Fit) -> Pictures:
    """Read photographs of one object each as squares of `side` pixels, see `open_square`."""
    return Pictures.read(paths, lambda path: open_square(path, side, channels, fit), (channels, side, side))


class Errors:
    """Prints and counts what cannot be read."""

    number = 0

    def report(self, name: str, reason: str) -> None:
        """Print why a file or folder cannot be read."""
        self.number += 1
        tqdm.write(f"error: {printable(name)}: {reason}", file=sys.stderr)


def list_pictures(paths: Sequence[str], errors: Errors) -> list[str]:
    """Return the pictures among files and in folders, and print what is not read in these."""
    unread: Counter[str] = Counter()
    files = list(find_images(paths, errors.report, unread))
    if unread:
        say(describe_unread(unread))
    return files


def readable(files: Sequence[str], read: Callable[[str], Result], errors: Errors) -> Iterator[tuple[str, Result]]:
    """Yield the files that can be read, with what `read` returns of them, and report the other ones."""
    for name, result in zip(files, read_images(files, read, disable=not sys.stdout.isatty()), strict=True):
        if isinstance(result, ValueError):
            errors.report(name, str(result))
        else:
            yield name, result


def format_answer(name: str, probabilities: Tensor, classes: Sequence[str]) -> str:
    """Return a line about a picture: the class with the largest of its probabilities, (K,), and whether it is sure."""
    best, second = probabilities.topk(2).indices.tolist()
    confidence = f"{probabilities[best]:.1%}" if probabilities[best] < MAX_PRINTED else "over 99.9%"  # never 100%
    line = f"{name}: {classes[best]}, {confidence}"
    if probabilities[best] < MIN_CONFIDENCE:
        line += f" (unsure: or {classes[second]}, {probabilities[second]:.1%})"
    return line


def stem(name: str) -> str:
    """Return the name of a file without its suffix and folder, short enough to be part of another name."""
    return os.fsencode(Path(name).stem)[:MAX_NAME_BYTES].decode(errors="ignore")


def save_image(path: Path, image: Image) -> None:
    """Save an image as PNG, atomically."""
    content = io.BytesIO()
    image.save(content, "PNG")
    write_atomically(path, content.getvalue())
