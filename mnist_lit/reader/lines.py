"""Straight lines that do not belong to a digit: frames, tables, ruled and squared paper."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["EIGHT_CONNECTED", "Floats", "Mask", "Numbers", "Pixels", "find_lines"]

Mask = NDArray[np.bool_]
Pixels = NDArray[np.float32]
Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)
MAX_THICKNESS = 2.5
"""Largest thickness of a line, in units of the median stroke width of everything in the picture, plus 1 pixel."""
MAX_SLOPE, MIN_ASPECT = 0.1, 10
"""Largest slope of a line, and its least length in units of its thickness."""
MIN_FRAME, MIN_COVERAGE, MIN_CONTINUITY = 0.2, 0.5, 0.9
"""A line is seen in at least MIN_FRAME of the picture's columns, and in MIN_COVERAGE of its own: something crosses it
in others. There is ink in MIN_CONTINUITY of its columns: the bars of neighbouring digits have gaps between them."""
EDGE, MARGIN = 0.05, 0.03
"""Distances as fractions of the picture's side. A line reaches the edge of the picture if it ends within EDGE of it. It
extends beyond the ink by MARGIN at both ends, which the bar of a tightly cropped 7 does not."""
MIN_INK_SIZE = 3
"""Least size of ink that may be a digit, in units of the median stroke width."""

MAX_VOTES = 2_000_000
"""Largest number of votes in memory at once: each point votes for a line of each slope."""
MAX_STROKES = 5
"""Largest number of strokes of a digit if all are straight, as in the 8 of a seven-segment display."""


class Runs(NamedTuple):
    """Unbroken rows or columns of pixels: their row or column, where they start in it, and their lengths, (N,) each."""

    line: Numbers
    start: Numbers
    length: Numbers


class Line(NamedTuple):
    """A nearly horizontal line, or a vertical one in a transposed picture, in pixels."""

    start: int
    stop: int
    """Columns."""
    row: float
    """The row of the line, or of its extrapolation, in column 0."""
    slope: float
    thickness: float

    @property
    def middle(self) -> float:
        """The row of its middle."""
        return self.row + self.slope * (self.start + self.stop) / 2


Lines = Sequence[Line]


def find_lines(mask: Mask) -> tuple[Mask, bool]:
    """Find the lines that are nearly horizontal or vertical.

    Strokes of a digit may be straight too. So a line reaches both edges of the picture, or is part of a frame or table,
    and ends farther out than the ink.

    Args:
        mask: where there is ink or a line, (H, W).

    Returns:
        mask of the lines, without the pixels of ink that crosses them, (H, W).
        whether they are certainly not a digit: there is ink beside them, or there are too many of them.
    """
    if not mask.any():
        return mask, True
    height, width = mask.shape
    runs = _find_runs(mask), _find_runs(mask.T)
    across, down = _lengths(runs[0], mask), _lengths(runs[1], mask.T).T
    stroke = float(np.median(np.minimum(across[mask], down[mask])))

    def pixels(rows: Lines, columns: Lines) -> Mask:
        """Return the pixels of lines, without those where ink on both sides shows that something crosses the line."""
        along, upright = _max_runs(rows, (height, width)), _max_runs(columns, (width, height)).T
        found = mask & ((down <= along) | (across <= upright) | ((along > 0) & (upright > 0)))
        size = 2 * max(_reach(line) for line in (*rows, *columns)) + 3
        closed = ndimage.minimum_filter(ndimage.maximum_filter(mask & ~found, size), size)
        return np.asarray(found & ~closed)

    thickness = MAX_THICKNESS * stroke + 1
    rows, columns = (
        _find_horizontal(mask, runs[1], thickness),
        _find_horizontal(mask.T, runs[0], thickness),
    )
    table = _table(rows, columns, mask.shape)
    rows, columns = table or (_through(rows, width), _through(columns, height))
    nothing = np.zeros_like(mask)
    if not rows and not columns:
        return nothing, False
    found = pixels(rows, columns)
    box = _largest(mask & ~found, MIN_INK_SIZE * stroke)
    if table:  # without ink, an empty form, or a digit of straight strokes
        return found, bool(box) or len(rows) + len(columns) > MAX_STROKES
    if not box:
        return nothing, False
    # Strokes of a tightly cropped digit may reach both edges too: it does not keep off them then.
    free = all(
        MARGIN * side <= start and stop <= (1 - MARGIN) * side
        for (start, stop), side in zip(box, mask.shape, strict=True)
    )
    (top, bottom), (left, right) = box
    rows = _beyond(rows, (left, right), width) if free or len(rows) > 1 else []
    columns = _beyond(columns, (top, bottom), height) if free or len(columns) > 1 else []
    if len(columns) == 1 and left - MARGIN * width <= columns[0].middle <= right + MARGIN * width:
        columns = []  # a stem: paper has no single vertical line where one writes
    return (pixels(rows, columns) if rows or columns else nothing), True


def _table(rows: Lines, columns: Lines, shape: tuple[int, ...]) -> tuple[Lines, Lines] | None:
    """Return the lines of a frame or table, if there is one: each reaches the outer ones that cross it."""
    height, width = shape
    while min(len(rows), len(columns)) >= 2:
        lacks = [_lack(line, columns) / width for line in rows], [_lack(line, rows) / height for line in columns]
        worst = max(*lacks[0], *lacks[1])
        if worst <= EDGE:
            return rows, columns
        rows, columns = (
            [line for line, lack in zip(lines, lack_of, strict=True) if lack < worst]
            for lines, lack_of in zip((rows, columns), lacks, strict=True)
        )
    return None


def _lack(line: Line, crossing: Lines) -> float:
    """Return how many pixels a line is too short to reach the outer ones of the lines that cross it."""
    places = [other.middle for other in crossing]
    return max(line.start - min(places), max(places) - line.stop)


def _through(lines: Lines, side: int) -> Lines:
    """Return the lines that reach both edges."""
    edge = EDGE * side + 1
    return [line for line in lines if line.start <= edge and line.stop >= side - edge]


def _beyond(lines: Lines, ink: tuple[int, int], side: int) -> Lines:
    """Return the lines that begin before the ink and end after it."""
    margin = MARGIN * side
    return [line for line in lines if line.start + margin <= ink[0] and ink[1] <= line.stop - margin]


def _largest(ink: Mask, min_size: float) -> list[tuple[int, int]] | None:
    """Return the rows and columns of the largest component of ink, or None if it is too small for a digit."""
    labels, _ = ndimage.label(ink, EIGHT_CONNECTED)
    sizes = np.bincount(labels.ravel())[1:]
    if not len(sizes):
        return None
    box = [(part.start, part.stop) for part in ndimage.find_objects(labels)[int(sizes.argmax())]]
    return box if max(stop - start for start, stop in box) >= min_size else None


def _reach(line: Line) -> int:
    """Return how far the pixels of a line are from its middle, at most."""
    return int(line.thickness) + 1


def _max_runs(lines: Lines, shape: tuple[int, int]) -> Pixels:
    """Return an array (H, W) that is 0, and along a line the length of the vertical runs that belong to it."""
    result = np.zeros(shape, dtype=np.float32)
    for line in lines:
        reach = _reach(line)
        columns = np.arange(max(line.start - reach, 0), min(line.stop + reach, shape[1]))  # to the corners of a frame
        middle = np.rint(line.row + line.slope * columns).astype(int)
        for shift in range(-reach, reach + 1):
            rows = middle + shift
            inside = (rows >= 0) & (rows < shape[0])
            result[rows[inside], columns[inside]] = 1.5 * line.thickness + 1
    return result


def _find_horizontal(mask: Mask, runs: Runs, max_thickness: float) -> Lines:
    """Return lines, by a Hough transform (Duda and Hart 1972) of the middles of thin vertical runs."""
    height, width = mask.shape
    thin = runs.length <= max_thickness
    x, y, thickness = runs.line[thin], (runs.start + (runs.length - 1) / 2)[thin], runs.length[thin]
    slopes = np.linspace(-MAX_SLOPE, MAX_SLOPE, 2 * round(MAX_SLOPE * width / 2) + 1)
    offset = round(MAX_SLOPE * width) + 2
    rows = height + 2 * offset

    def votes(x: Numbers, y: Floats) -> Numbers:
        """Return how many of the points are on each line, (slopes, rows)."""
        parts = np.array_split(slopes, 1 + len(slopes) * len(x) // MAX_VOTES)
        return np.concatenate(
            [_count(np.rint(y - part[:, None] * x).astype(np.int64) + offset, rows) for part in parts]
        )

    lines: list[Line] = []
    if len(x) < MIN_FRAME * width:
        return lines
    counts = votes(x, y)
    while True:
        smooth = ndimage.uniform_filter1d(counts * 3, 3, axis=1)
        best = np.unravel_index(smooth.argmax(), smooth.shape)
        if smooth[best] < MIN_FRAME * width:
            return lines
        slope, row = float(slopes[best[0]]), float(best[1] - offset)
        near = abs(y - slope * x - row) <= 1.5
        usual = float(np.median(thickness[near]))
        across = x[near] - x[near].mean()
        slope = float((across * y[near]).sum() / max((across**2).sum(), 1))  # least squares
        row = float(y[near].mean() - slope * x[near].mean())
        near = abs(y - slope * x - row) <= 1.5 + usual / 2
        start, stop = int(x[near].min()), int(x[near].max()) + 1
        line, length = Line(start, stop, row, slope, usual), stop - start
        if near.sum() >= MIN_COVERAGE * length and length >= MIN_ASPECT * usual and _is_continuous(line, mask):
            lines.append(line)
        counts -= votes(x[near], y[near])
        x, y, thickness = x[~near], y[~near], thickness[~near]


def _is_continuous(line: Line, mask: Mask) -> bool:
    """Return whether there is ink along a line, be it of the line or of what crosses it."""
    columns = np.arange(line.start, line.stop)
    rows = np.rint(line.row + line.slope * columns).astype(int) + np.array([[-1], [0], [1]])  # (3, length)
    found = mask[rows.clip(0, len(mask) - 1), columns].any(axis=0)
    return bool(found.mean() >= MIN_CONTINUITY)


def _count(values: Numbers, size: int) -> Numbers:
    """Return how often each number below `size` is in each row of values (M, N), (M, size)."""
    number = len(values)
    found = np.bincount((values + size * np.arange(number)[:, None]).ravel(), minlength=number * size)
    return found.reshape(number, size)


def _find_runs(mask: Mask) -> Runs:
    """Return the horizontal runs of a mask, row by row."""
    height, width = mask.shape
    framed = np.zeros((height, width + 1), dtype=bool)  # so that runs end with their row
    framed[:, :-1] = mask
    ends = np.flatnonzero(np.diff(framed.ravel(), prepend=False))
    starts, stops = ends[::2], ends[1::2]
    line, start = np.divmod(starts, width + 1)
    return Runs(line, start, stops - starts)


def _lengths(runs: Runs, mask: Mask) -> Numbers:
    """Return the length of the horizontal run that each pixel of a mask is in, 0 outside."""
    result = np.zeros(mask.shape, dtype=np.int64)
    result[mask] = np.repeat(runs.length, runs.length)
    return result
