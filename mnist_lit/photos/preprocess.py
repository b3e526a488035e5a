"""A digit on paper as MNIST has it: ink told from paper, scaled, centred."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

__all__ = ["as_mnist"]

Grey = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIDE, BOX = 28, 20
"""Pixels of MNIST's images, and of the longer side of the digit in them."""
COARSE = 48
"""Pixels of the shorter side of the picture in which light and shadow are looked for."""
WINDOWS = (0.1, 0.15, 0.2, 0.3, 0.45)
"""How broad strokes may be, as shares of the picture's shorter side."""
PLATEAU = 0.75
"""Share of the ink of a broader window from which on a window is broad enough."""
BLANK = "no digit in it: it looks blank"
LEAST_CONTRAST = 0.1
"""Of ink, as a share of the paper's brightness."""
SMALLEST = 8
"""Pixels of a digit's longer side: what is smaller is dust."""
THIN, USUAL, THICK = 1.3, 1.95, 3.2
"""Breadth of strokes in MNIST, in its pixels, by area and outline: the median, and what 5 % are below and above."""
ROUGH = 2
"""Pixels of a picture for one of MNIST's, below which it is too rough to tell how broad strokes are."""
HALF = 0.5
DUST = 0.03
"""Share of the digit's ink below which other ink is dust."""
NEIGHBOURS = np.ones((3, 3), dtype=bool)  # eight


def as_mnist(picture: Grey) -> NDArray[np.uint8]:
    """Return the digit in a picture as MNIST would have it: white on black, in a box of 20×20, centred by its mass.

    The method is LeCun's (1998, doi:10.1109/5.726791, III.A), after ink has been told from paper.

    Args:
        picture: (H, W, C), 0-255: grey or colours, dark on light or light on dark.

    Returns:
        (28, 28), 0-255.

    Raises:
        ValueError: if there is no digit, or more than one.
    """
    strength = np.max([_darkness(picture[..., channel]) for channel in range(picture.shape[2])], axis=0)  # (H, W)
    digit = _only_digit(strength)  # (h, w): cropped
    return _centred(_usual_stroke(digit))


def _darkness(channel: Grey) -> Grey:
    """Return how much darker than the paper around it each pixel is, 0-1; where ink is light, how much lighter."""
    height, width = channel.shape
    coarse = np.asarray(Image.fromarray(channel).reduce(max(1, round(min(height, width) / COARSE))))  # (h, w)
    # Ink is the rarer: where it is dark, the mean is nearer to the paper, and the cubes of what is dark outweigh.
    differences = coarse - ndimage.uniform_filter(coarse, int(0.7 * min(coarse.shape)) or 1, mode="nearest")
    if (differences**3).sum() > 0:
        channel, coarse = 255 - channel, 255 - coarse
    paper = Image.fromarray(_paper(coarse)).resize((width, height), Image.Resampling.BILINEAR)
    light = np.maximum(np.asarray(paper), 16)  # nothing can be told where there is no light
    return np.asarray((light - channel) / light)


def _paper(coarse: Grey) -> Grey:
    """Return how bright the paper is everywhere, also below the ink.

    A closing takes away what is dark and narrower than its window. A window broader than a stroke takes it all; a
    broader one takes shadows too. So it is the first one after which broader ones take little more.
    """
    smooth = ndimage.gaussian_filter(coarse, 0.5)
    margin = int(WINDOWS[-1] * min(coarse.shape) / 2) + 1
    # Beyond the edges light goes on as it went: where it grows darker there, the paper would look like ink else.
    wide = np.pad(smooth, margin, "reflect", reflect_type="odd")
    inside = slice(margin, -margin)
    taken, enough = 0.0, False
    for share in WINDOWS:
        window = max(3, int(share * min(coarse.shape)))
        closed = ndimage.grey_closing(wide, size=(window, window), mode="nearest")[inside, inside]
        now = float((((closed - smooth) / np.maximum(closed, 16)) ** 4).sum())  # shadows are large but not so dark
        if enough:
            break
        enough, taken = bool(taken) and taken >= PLATEAU * now, now
    return np.asarray(ndimage.gaussian_filter(closed, 1))


def _threshold(values: Grey) -> float:
    """Return the value between two kinds of values, 0-1, that tells them best apart (Otsu 1979)."""
    counts, edges = np.histogram(values, 256, (0, 1))
    middles = (edges[1:] + edges[:-1]) / 2
    below = counts.cumsum()[:-1]
    above = values.size - below
    sums = (counts * middles).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1:-1][np.nan_to_num(between).argmax()])


def _only_digit(strength: Grey) -> Grey:
    """Return how much ink is where, 0-1, of the one digit in it, cropped to it.

    Raises:
        ValueError: if there is none, or more than one.
    """
    if min(strength.shape) >= COARSE:
        strength = ndimage.gaussian_filter(strength, 0.7)
    step = max(1, min(strength.shape) // 100)
    some = strength[::step, ::step]  # enough pixels to tell kinds from
    low, paper = np.percentile(some, (5, 30))  # at most two thirds of a picture are ink
    noise = 4 * (paper - low)
    mask = strength > _threshold(some.clip(paper + noise, 1))
    if not mask.any() or strength[mask].mean() - paper < max(LEAST_CONTRAST, 1.35 * noise):
        raise ValueError(BLANK)
    digit = _parts_of_digit(mask, strength)
    full = np.percentile(strength[digit], 75)
    edges = ndimage.maximum_filter(digit, 3)  # of strokes, which are soft
    level = ((strength - paper) / (full - paper)).clip(0, 1) * edges
    rows, columns = (np.flatnonzero(digit.any(axis)) for axis in (1, 0))
    return np.asarray(level[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], dtype=np.float32)


def _parts_of_digit(mask: Mask, strength: Grey) -> Mask:
    """Return which of the ink is the digit's, or raise ValueError as above.

    A digit may have parts, as a 5 and its bar. What is half as tall as the other or taller, and stands apart, is
    another digit.
    """
    reach = max(1, round(min(mask.shape) / 100))  # over small gaps in a stroke
    labels, count = ndimage.label(ndimage.maximum_filter(mask, 2 * reach + 1), NEIGHBOURS)
    labels *= mask
    weights = np.bincount(labels.ravel(), strength.ravel(), count + 1)[1:]
    boxes = ndimage.find_objects(labels)
    inside = [i for i in range(count) if not _is_line(labels[boxes[i]] == i + 1, boxes[i], mask.shape)]
    candidates = inside or range(count)
    main = max(candidates, key=lambda i: weights[i])
    y, x = boxes[main]
    size = max(y.stop - y.start, x.stop - x.start)
    if size < SMALLEST:
        raise ValueError(BLANK)
    parts = []
    for i in candidates:
        if weights[i] < DUST * weights[main]:
            continue
        rows, columns = boxes[i]
        above = max(rows.start - y.stop, y.start - rows.stop)
        beside = max(columns.start - x.stop, x.start - columns.stop)
        shorter, taller = sorted((rows.stop - rows.start, y.stop - y.start))
        if i != main and shorter >= 0.5 * taller and (beside > 0.1 * taller or above > 0.15 * taller):
            raise ValueError("more than one digit in it: cut it out")
        if max(above, beside) < 0.3 * size:
            parts.append(i + 1)
    return np.isin(labels, parts)


def _is_line(part: Mask, box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Tell whether ink runs all across the picture, thin or along an edge: ruled paper, its end, or a frame."""
    for across, along in ((0, 1), (1, 0)):
        sides = box[across].start < 2, box[across].stop > shape[across] - 2  # nearly touched
        lines = part.any(axis=across).mean() * part.shape[along] > 0.8 * shape[along]
        thin = part.shape[across] < 0.1 * shape[across]
        edges = part[[0, -1]] if across == 0 else part[:, [0, -1]].T  # (2, length)
        framed = any(side and edge.sum() > 0.8 * shape[along] for side, edge in zip(sides, edges, strict=True))
        if (lines and thin) or framed:
            return True
    return False


def _usual_stroke(digit: Grey) -> Grey:
    """Return a digit (h, w), 0-1, with strokes as broad as MNIST's, where those of a pen or a marker were not."""
    scale = max(digit.shape) / BOX
    if scale < ROUGH:
        return digit
    mask = np.pad(digit > HALF, 1)
    breadth = 2 * mask.sum() / (mask & ~ndimage.minimum_filter(mask, 3)).sum() / scale  # of its two sides
    change = abs(USUAL - breadth) / 2 * scale  # on each of them
    if breadth < THIN:
        mask = ndimage.distance_transform_edt(~np.pad(mask, int(change))) <= change
    elif breadth > THICK:
        mask = ndimage.distance_transform_edt(mask) > change
    else:
        return digit
    return np.asarray(mask, dtype=np.float32)


def _centred(digit: Grey) -> NDArray[np.uint8]:
    """Scale a digit to a longer side of 20 pixels, and put its centre of mass into the middle of 28×28."""
    scale = BOX / max(digit.shape)
    if scale != 1:
        height, width = (max(1, round(scale * side)) for side in digit.shape)
        kind = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
        digit = np.asarray(Image.fromarray(digit).resize((width, height), kind)).clip(0, 1)  # (h, w)
    corner = [
        min(max(round(SIDE / 2 - middle), 0), SIDE - side)
        for middle, side in zip(ndimage.center_of_mass(digit), digit.shape, strict=True)
    ]
    centred = np.zeros((SIDE, SIDE), dtype=np.uint8)
    centred[corner[0] : corner[0] + digit.shape[0], corner[1] : corner[1] + digit.shape[1]] = (255 * digit).round()
    return centred
