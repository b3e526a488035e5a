"""A person's own pictures: read for the network, reported with its answers, and saved as it saw them."""

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import ImageDraw
from PIL.Image import Image
from torch import Tensor
from tqdm import tqdm

from mnist_lit.photos.images import find_images, open_sheet, read_images, to_image
from mnist_lit.photos.preprocess import Prepare, Sheet, read_picture, read_sheet
from mnist_lit.system.errors import printable
from mnist_lit.system.files import write_atomically
from mnist_lit.training.drawings import draw_braille

__all__ = [
    "Pictures",
    "mark_unsure",
    "read_pictures",
    "read_sheets",
    "report",
    "report_sheets",
    "save_seen",
    "save_sheets",
]

Result = TypeVar("Result")

MAX_PRINTED = 0.9995  # probability
MAX_DRAWN = 100  # pictures drawn on a terminal
MAX_NAME_BYTES = 100  # of a picture's name in that of its preprocessed picture; file systems allow 143 to 255 in all
UNSURE = "?"
COLOUR, UNSURE_COLOUR = (0, 110, 220), (220, 0, 0)


@dataclass
class Pictures:
    """The readable ones of the pictures that were given, preprocessed."""

    names: list[str]
    """The picture's file of each image that the network gets."""
    pixels: Tensor
    """uint8 (N, C, H, W)."""
    failed: int
    """Pictures that could not be read: the reasons have been printed."""
    sheets: list[tuple[str, Sheet]]
    """With `--several`: the pictures' files, and their digits in order."""


def read_pictures(paths: Sequence[str], prepare: Prepare, shape: Sequence[int]) -> Pictures:
    """Read pictures of one object each.

    Args:
        paths: paths of files and folders.
        prepare: makes pixels of an opened image, or raises ValueError.
        shape: shape of these pixels, (C, H, W).
    """
    errors = _Errors()
    files = list(find_images(paths, errors.report))
    names: list[str] = []
    # Allocated at once: many small arrays, among the memory that decoding frees, would take ten times as much.
    pixels = torch.empty(len(files), *shape, dtype=torch.uint8)
    for name, picture in _readable(files, partial(read_picture, prepare=prepare), errors, processes=True):
        pixels[len(names)] = torch.from_numpy(picture)
        names.append(name)
    return Pictures(names, pixels[: len(names)], errors.number, [])


def read_sheets(paths: Sequence[str]) -> Pictures:
    """Read pictures of any number of digits each."""
    errors = _Errors()
    sheets = list(_readable(list(find_images(paths, errors.report)), read_sheet, errors, processes=False))
    names = [name for name, sheet in sheets for _ in sheet.pixels]
    pixels = np.concatenate([sheet.pixels for _, sheet in sheets] or [np.empty((0, 28, 28), np.uint8)])
    return Pictures(names, torch.from_numpy(pixels)[:, None], errors.number, sheets)


class _Errors:
    number = 0

    def report(self, name: str, reason: str) -> None:
        self.number += 1
        tqdm.write(f"error: {printable(name)}: {reason}", file=sys.stderr)


def _readable(
    files: Sequence[str], read: Callable[[str], Result], errors: _Errors, *, processes: bool
) -> Iterator[tuple[str, Result]]:
    """Yield the files that can be read, with what is read of them; report the other ones."""
    results = read_images(files, read, processes=processes, disable=not sys.stdout.isatty())
    for name, result in zip(files, results, strict=True):
        if isinstance(result, ValueError):
            errors.report(name, str(result))
        else:
            yield name, result


def report(
    pictures: Pictures, probabilities: Tensor, classes: Sequence[str], doubtful: Tensor, novel: Tensor, *, draw: bool
) -> None:
    """Print a line for each picture; on a terminal, with a drawing of each as it was preprocessed if `draw`.

    Args:
        pictures: pictures of N objects.
        probabilities: probabilities of their classes, (N, K).
        classes: names.
        doubtful: whether the probability is low, bool (N,).
        novel: whether it is perhaps of no class, bool (N,).
        draw: whether they can be drawn.
    """
    drawn = draw and sys.stdout.isatty() and len(pictures.names) <= MAX_DRAWN
    rows = zip(pictures.names, pictures.pixels, probabilities, doubtful, novel, strict=False)
    for name, picture, row, unsure, strange in rows:
        best, second = row.topk(2).indices.tolist()
        confidence = f"{row[best]:.1%}" if row[best] < MAX_PRINTED else "over 99.9%"  # never 100%
        line = f"{printable(name)}: {printable(classes[best])}, {confidence}"
        if unsure:
            line += f" (unsure: or {printable(classes[second])}, {row[second]:.1%})"
        if strange:
            line += " (perhaps no digit)"
        if drawn:
            dots = draw_braille(picture[0])
            dots[len(dots) // 2] += f"  {line}"
            print(*dots, sep="\n")
        else:
            print(line)


def report_sheets(pictures: Pictures, answers: Sequence[str]) -> None:
    """Print the digits of each picture in their lines."""
    for name, sheet, found in _by_sheet(pictures, answers):
        lines: dict[int, list[str]] = {}
        for line, answer in zip(sheet.lines.tolist(), found, strict=False):
            lines.setdefault(line, []).append(answer)
        heading = f"{printable(name)}: "
        print(heading + ("\n" + " " * len(heading)).join(" ".join(line) for line in lines.values()))
    unsure = sum(answer.endswith(UNSURE) for answer in answers)
    print(f"{len(answers):,} digits" + (f", {unsure:,} of them unsure ({UNSURE})" if unsure else ""))


def mark_unsure(pictures: Pictures, probabilities: Tensor, unsure: Tensor) -> list[str]:
    """Return the digits on sheets, the unsure ones with a question mark, and where several may touch each other."""
    touching = [bool(mark) for _, sheet in pictures.sheets for mark in sheet.touching]
    return [
        f"{digit}{UNSURE if mark or several else ''}"
        for digit, mark, several in zip(probabilities.argmax(dim=1).tolist(), unsure.tolist(), touching, strict=False)
    ]


def save_seen(folder: Path, pictures: Pictures) -> None:
    """Save the preprocessed pictures, numbered as in the CSV file: two folders may have files of the same name."""
    for number, (name, picture) in enumerate(zip(pictures.names, pictures.pixels, strict=True)):
        _save(folder / f"{number:05}_{_stem(name)}.png", to_image(picture.permute(1, 2, 0).numpy()))
    print(f"preprocessed pictures: {folder}")


def save_sheets(folder: Path, pictures: Pictures, answers: Sequence[str]) -> None:
    """Save the preprocessed digits, numbered as in the CSV file, in a folder for each answer, and the marked pictures.

    So the folder has the layout of a data set, once the few that are misread have been moved.
    """
    number = 0
    for name, sheet, found in _by_sheet(pictures, answers):
        opened, scale = open_sheet(name)
        marked = to_image(opened.round().astype(np.uint8)).convert("RGB")
        draw = ImageDraw.Draw(marked)
        for pixels, box, answer in zip(sheet.pixels, sheet.boxes, found, strict=False):
            left, top, width, height = (box / scale).tolist()
            colour = UNSURE_COLOUR if answer.endswith(UNSURE) else COLOUR
            draw.rectangle((left - 3, top - 3, left + width + 2, top + height + 2), outline=colour, width=2)
            draw.text((left - 3, top - 3), answer, fill=colour, font_size=max(12, height / 3), anchor="lb")
            _save(folder / answer[0] / f"{number:05}_{_stem(name)}.png", to_image(pixels[..., None]))
            number += 1
        _save(folder / f"{number - len(found):05}_{_stem(name)}_read.png", marked)
    print(f"preprocessed digits: {folder}")


def _by_sheet(pictures: Pictures, answers: Sequence[str]) -> Iterator[tuple[str, Sheet, Sequence[str]]]:
    start = 0
    for name, sheet in pictures.sheets:
        if start >= len(answers):  # fewer if the batches are limited
            return
        yield name, sheet, answers[start : start + len(sheet.pixels)]
        start += len(sheet.pixels)


def _stem(name: str) -> str:
    return os.fsencode(Path(name).stem)[:MAX_NAME_BYTES].decode(errors="ignore")


def _save(path: Path, image: Image) -> None:
    content = io.BytesIO()
    image.save(content, "PNG")
    write_atomically(path, content.getvalue())
