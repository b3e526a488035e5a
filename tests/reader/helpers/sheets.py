"""Rendered sheets of paper with digits: plain, ruled, squared, in a table or a frame, slightly turned."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["PAPERS", "photographed", "sheet", "written"]

PAPERS = ("plain", "ruled", "squared", "table", "frame")


def written(
    digits: Sequence[Sequence[NDArray[np.uint8]]], rng: np.random.Generator, cell: int = 90, size: int = 60
) -> tuple[NDArray[np.float64], list[list[tuple[int, int]]]]:
    """Write lines of digits (28, 28).

    Returns:
        the ink, 0-1, with a margin of a cell on each side; and the rows and columns of the digits' centres.
    """
    rows, columns = len(digits), max(len(line) for line in digits)
    ink = np.zeros(((rows + 2) * cell, (columns + 2) * cell))
    centres: list[list[tuple[int, int]]] = []
    for row, line in enumerate(digits, 1):
        centres.append([])
        for column, digit in enumerate(line, 1):
            scaled = Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)
            down, right = (place * cell + (cell - size) // 2 + int(rng.integers(-4, 5)) for place in (row, column))
            part = ink[down : down + size, right : right + size]
            np.maximum(part, np.asarray(scaled) / 255, out=part)
            centres[-1].append((down + size // 2, right + size // 2))
    return ink, centres


def sheet(shape: tuple[int, int], paper: str, cell: int, thickness: int = 2) -> NDArray[np.float64]:
    """Return the lines of a paper, 0-1: a table or frame is within a margin of a cell, other lines go to the edges."""
    height, width = shape
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)

    def line(start: tuple[int, int], end: tuple[int, int]) -> None:
        draw.line((start, end), fill=255, width=thickness)

    if paper == "frame":
        draw.rectangle((cell, cell, width - cell, height - cell), outline=255, width=thickness)
    step = cell // 2 if paper == "squared" else cell
    margin = cell if paper == "table" else 0
    if paper in {"ruled", "squared", "table"}:
        for y in range(margin, height - margin + 1, step):
            line((margin, y), (width - margin, y))
    if paper in {"squared", "table"}:
        for x in range(margin, width - margin + 1, step):
            line((x, margin), (x, height - margin))
    return np.asarray(image) / 255


def photographed(
    ink: NDArray[np.float64], lines: NDArray[np.float64], rng: np.random.Generator, degrees: float = 0
) -> NDArray[np.float32]:
    """Return a grey picture (H, W, 1), 0-255, of ink on lined paper, turned by an angle, in uneven light."""
    darkness = np.maximum(0.8 * ink, 0.6 * lines)
    turned = Image.fromarray(darkness.astype(np.float32)).rotate(degrees, Image.Resampling.BICUBIC)
    height, width = ink.shape
    light = np.linspace(235, 190, width) * np.linspace(1, 0.9, height)[:, None]
    picture = light * (1 - np.asarray(turned)) + rng.normal(0, 2, ink.shape)
    return np.asarray(picture.clip(0, 255)[..., None], dtype=np.float32)
