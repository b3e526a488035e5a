"""Pictures of digits: one digit each, or every digit of a sheet in reading order."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from mnist_lit.datasets.catalog import DATASETS, MNIST
from mnist_lit.datasets.images import open_image, to_image
from mnist_lit.datasets.photographs import (
    MIN_CONFIDENCE,
    Errors,
    Pictures,
    format_answer,
    list_pictures,
    readable,
    save_image,
    stem,
)
from mnist_lit.reader.novelty import MAX_NOVELTY, NoveltyNetwork
from mnist_lit.reader.preprocess import Sheet, as_mnist, open_sheet, read_sheet
from mnist_lit.system.errors import UsageError
from mnist_lit.system.output import say

__all__ = ["read_digits", "read_sheets"]

MAX_DRAWN = 100  # pictures drawn on a terminal
UNSURE = "?"
COLOUR, UNSURE_COLOUR = (0, 110, 220), (220, 0, 0)
BRAILLE_THRESHOLD = 127  # pixel values above it, 0-255, are dots
BRAILLE_BITS = [[1, 8], [2, 16], [4, 32], [64, 128]]  # bits of a Unicode character's dots, by row and column


class Digits(Pictures):
    """Pictures of one digit each."""

    def report(self, probabilities: Tensor, classes: Sequence[str]) -> None:
        """Print a line for each picture and, on a terminal, the digit as it was preprocessed."""
        drawn = sys.stdout.isatty() and len(self.names) <= MAX_DRAWN
        novel = self.novel.tolist()
        for name, picture, row, strange in zip(self.names, self.pixels, probabilities, novel, strict=False):
            line = format_answer(name, row, classes) + (" (perhaps no digit)" if strange else "")
            if drawn:
                dots = draw_braille(picture[0])
                dots[len(dots) // 2] += f"  {line}"
                say(*dots)
            else:
                say(line)

    @cached_property
    def novel(self) -> Tensor:
        """Whether an image is perhaps not a digit, bool (N,)."""
        return NoveltyNetwork.load().novelty(self.pixels) >= MAX_NOVELTY


@dataclass
class Sheets(Digits):
    """Pictures of any number of digits each.

    Args:
        sheets: files of the pictures, and their digits in order.
    """

    sheets: list[tuple[str, Sheet]] = field(default_factory=list)

    def report(self, probabilities: Tensor, classes: Sequence[str]) -> None:  # noqa: ARG002  # they are digits
        """Print the digits of each picture in their lines."""
        answers = self._answers(probabilities)
        for name, sheet, found in self._by_sheet(answers):
            lines: dict[int, list[str]] = {}
            for line, answer in zip(sheet.lines.tolist(), found, strict=False):
                lines.setdefault(line, []).append(answer)
            heading = f"{name}: "
            for answered in lines.values():
                say(heading + " ".join(answered))
                heading = " " * len(heading)
        unsure = sum(answer.endswith(UNSURE) for answer in answers)
        say(f"{len(answers):,} digits" + (f", {unsure:,} of them unsure ({UNSURE})" if unsure else ""))

    def save(self, folder: Path, probabilities: Tensor) -> None:
        """Save the digits, numbered as in the CSV file, in a folder for each answer, and the pictures with their boxes.

        So the folder has the layout of a data set, once the few that are misread have been moved.
        """
        number = 0
        for name, sheet, found in self._by_sheet(self._answers(probabilities)):
            opened, scale = open_sheet(name)
            marked = to_image(opened.round().astype(np.uint8)).convert("RGB")
            draw = ImageDraw.Draw(marked)
            for pixels, box, answer in zip(sheet.pixels, sheet.boxes, found, strict=False):
                left, top, width, height = (box / scale).tolist()
                colour = UNSURE_COLOUR if answer.endswith(UNSURE) else COLOUR
                draw.rectangle((left - 3, top - 3, left + width + 2, top + height + 2), outline=colour, width=2)
                draw.text((left - 3, top - 3), answer, fill=colour, font_size=max(12, height / 3), anchor="lb")
                save_image(folder / answer[0] / f"{number:05}_{stem(name)}.png", to_image(pixels[..., None]))
                number += 1
            save_image(folder / f"{number - len(found):05}_{stem(name)}_read.png", marked)
        say(f"preprocessed digits: {folder}")

    def _answers(self, probabilities: Tensor) -> list[str]:
        """Return the digits, with a question mark where one is unsure, or may be several that touch each other."""
        doubtful = probabilities.amax(dim=1) < MIN_CONFIDENCE
        touching = [bool(mark) for _, sheet in self.sheets for mark in sheet.touching]
        marks = zip(doubtful.tolist(), self.novel.tolist(), touching, strict=False)
        predictions = probabilities.argmax(dim=1).tolist()
        return [f"{digit}{UNSURE if any(mark) else ''}" for digit, mark in zip(predictions, marks, strict=False)]

    def _by_sheet(self, answers: Sequence[str]) -> Iterator[tuple[str, Sheet, Sequence[str]]]:
        start = 0
        for name, sheet in self.sheets:
            if start >= len(answers):  # fewer if the batches are limited
                return
            yield name, sheet, answers[start : start + len(sheet.pixels)]
            start += len(sheet.pixels)


def read_digits(paths: Sequence[str]) -> Digits:
    """Read pictures of one digit each: files, or folders of them."""
    return Digits.read(paths, lambda path: as_mnist(open_image(path)), MNIST.shape)


def read_sheets(
    paths: Sequence[str], folder: str | None, dataset: str, classes: Sequence[str], shape: Sequence[int]
) -> Sheets:
    """Read every digit of pictures.

    Args:
        paths: paths of files and folders.
        folder: folder to which the digits will be saved, if any.
        dataset: name of the data set that the network was trained on.
        classes: names of its classes.
        shape: shape of its images, (C, H, W).

    Raises:
        UsageError: if the network does not read digits, or the folder is not empty.
    """
    digits = (tuple(shape), tuple(classes)) == (MNIST.shape, tuple(MNIST.classes))
    if not digits or (dataset in DATASETS and dataset != MNIST.name):
        kind = f"{len(classes)} classes of images {tuple(shape)}"
        raise UsageError(f"--several: the checkpoint classifies {dataset}, {kind}, not ten digits of {MNIST.shape}")
    if folder and Path(folder).is_dir() and any(Path(folder).iterdir()):
        raise UsageError(f"--save_seen: {folder} is not empty: its digits would be mixed with these")
    errors = Errors()
    sheets = list(readable(list_pictures(paths, errors), read_sheet, errors))
    names = [name for name, sheet in sheets for _ in sheet.pixels]
    pixels = np.concatenate([sheet.pixels for _, sheet in sheets] or [np.empty((0, 28, 28), np.uint8)])
    boxes = np.concatenate([sheet.boxes for _, sheet in sheets] or [np.empty((0, 4), np.int64)])
    number = errors.number + len(sheets)
    return Sheets(names, torch.from_numpy(pixels)[:, None], errors.number, number, boxes, sheets)


def draw_braille(pixels: Tensor) -> list[str]:
    """Draw an image as lines of Braille characters, of two columns of four dots, each dot a pixel.

    Args:
        pixels: 0-255, (H, W); H a multiple of 4, W of 2.

    >>> draw_braille(torch.tensor([[255, 0], [255, 0], [255, 0], [255, 255]]))
    ['⣇']
    """
    height, width = pixels.shape
    dots = (pixels > BRAILLE_THRESHOLD).view(height // 4, 4, width // 2, 2)
    codes = (dots * torch.tensor(BRAILLE_BITS)[None, :, None]).sum(dim=(1, 3))  # (H / 4, W / 2)
    return ["".join(chr(0x2800 + code) for code in line) for line in codes.tolist()]
