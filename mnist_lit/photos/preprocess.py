"""Preprocess a photograph or scan of a digit as MNIST was: segment, scale and centre it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

__all__ = ["as_mnist"]

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

IMAGE_SIZE, DIGIT_SIZE = 28, 20
"""Pixels of a side of MNIST's images, and of the longer side of the digit in them."""
BACKGROUND_SIZE = 48
"""Pixels of the shorter side of the reduced image in which the background is estimated."""
CLOSING_WINDOWS, CLOSING_PLATEAU = (0.1, 0.15, 0.2, 0.3, 0.45), 0.75
"""Window sizes, as fractions of the image's shorter side; a window is large enough if the one before has removed this
fraction of what it removes."""
MIN_CONTRAST = 0.1
"""Of ink, as a fraction of the background's brightness."""
MIN_DIGIT_SIZE, MIN_COMPONENT_INK = 8, 0.03
"""Pixels of a digit's longer side, and a component's ink as a fraction of the largest one's: anything less is dust."""
MIN_STROKE, MEDIAN_STROKE, MAX_STROKE = 1.3, 1.95, 3.2
"""Stroke widths in MNIST, in its pixels, from area and perimeter: 5th percentile, median and 95th percentile."""
MIN_STROKE_SCALE = 2
"""Pixels per pixel of MNIST's below which the resolution is too low to measure the stroke width."""
BLANK = "no digit in it: it looks blank"
EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def as_mnist(picture: Pixels) -> NDArray[np.uint8]:
    """Return the digit in a picture as MNIST has it: white on black, fitted in 20×20, centre of mass in the middle.

    The normalisation is LeCun's (1998, doi:10.1109/5.726791, III.A), after segmentation.

    Args:
        picture: (H, W, C), 0-255: grey or colour, dark ink on a light background or the reverse.

    Returns:
        (28, 28), 0-255.

    Raises:
        ValueError: if there is no digit, or more than one.
    """
    strength = np.max([_ink_strength(picture[..., channel]) for channel in range(picture.shape[2])], axis=0)  # (H, W)
    digit = _segment_digit(strength)  # (h, w): cropped
    return _centre(_normalise_stroke_width(digit))


def _ink_strength(channel: Pixels) -> Pixels:
    """Return each pixel's contrast with the background, 0-1: how much darker it is, or lighter where ink is light."""
    height, width = channel.shape
    factor = max(1, round(min(height, width) / BACKGROUND_SIZE))
    reduced = np.asarray(Image.fromarray(channel).reduce(factor))  # (h, w)
    # Ink covers less than the background, so it differs more from the local mean, and the cubes have its sign.
    differences = reduced - ndimage.uniform_filter(reduced, int(0.7 * min(reduced.shape)) or 1, mode="nearest")
    if (differences**3).sum() > 0:
        channel, reduced = 255 - channel, 255 - reduced
    background = Image.fromarray(_background(reduced)).resize((width, height), Image.Resampling.BILINEAR)
    brightness = np.maximum(np.asarray(background), 16)  # where it is darker, differences are noise
    return np.asarray((brightness - channel) / brightness)


def _background(reduced: Pixels) -> Pixels:
    """Estimate the brightness of the background, under the ink too, by a morphological closing.

    A closing removes what is dark and narrower than its window: the strokes if it is wider than they are, but shadows
    too if it is much wider. So it is the window after the first one that removes little more than the one before.
    """
    smooth = ndimage.gaussian_filter(reduced, 0.5)
    margin = int(CLOSING_WINDOWS[-1] * min(reduced.shape) / 2) + 1
    # Extrapolate gradients of the light beyond the edges: towards a darker edge, the background would look like ink.
    padded = np.pad(smooth, margin, "reflect", reflect_type="odd")
    inside = slice(margin, -margin)
    previous, enough = 0.0, False
    for fraction in CLOSING_WINDOWS:
        window = max(3, int(fraction * min(reduced.shape)))
        closed = ndimage.grey_closing(padded, size=(window, window), mode="nearest")[inside, inside]
        # To the fourth power, since shadows are large but have less contrast.
        removed = float((((closed - smooth) / np.maximum(closed, 16)) ** 4).sum())
        if enough:
            break
        enough, previous = bool(previous) and previous >= CLOSING_PLATEAU * removed, removed
    return np.asarray(ndimage.gaussian_filter(closed, 1))


def _otsu_threshold(values: Pixels) -> float:
    """Return the threshold of values, 0-1, that maximises the variance between the two classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 256, (0, 1))
    centres = (edges[1:] + edges[:-1]) / 2
    below = counts.cumsum()[:-1]
    above = values.size - below
    sums = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1:-1][np.nan_to_num(variance).argmax()])


def _segment_digit(strength: Pixels) -> Pixels:
    """Return the ink of the only digit, 0-1, cropped to its bounding box.

    Raises:
        ValueError: if there is no digit, or more than one.
    """
    if min(strength.shape) >= BACKGROUND_SIZE:
        strength = ndimage.gaussian_filter(strength, 0.7)
    step = max(1, min(strength.shape) // 100)
    sample = strength[::step, ::step]  # enough pixels for percentiles and the threshold
    low, background = np.percentile(sample, (5, 30))  # at most two thirds of a picture are ink
    noise = 4 * (background - low)
    mask = strength > _otsu_threshold(sample.clip(background + noise, 1))
    if not mask.any() or strength[mask].mean() - background < max(MIN_CONTRAST, 1.35 * noise):
        raise ValueError(BLANK)
    digit = _digit_components(mask, strength)
    full = np.percentile(strength[digit], 75)
    dilated = ndimage.maximum_filter(digit, 3)  # includes the soft edges of strokes
    ink = ((strength - background) / (full - background)).clip(0, 1) * dilated
    rows, columns = (np.flatnonzero(digit.any(axis)) for axis in (1, 0))
    return np.asarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], dtype=np.float32)


def _digit_components(mask: Mask, strength: Pixels) -> Mask:
    """Return the mask of the digit's connected components.

    A digit may have several components, such as a 5 and its bar. One that is at least half as tall as the largest, or
    twice as tall, and separate from it is another digit.

    Raises:
        ValueError: as above.
    """
    gap = max(1, round(min(mask.shape) / 100))  # dilation closes small gaps in a stroke
    labels, count = ndimage.label(ndimage.maximum_filter(mask, 2 * gap + 1), EIGHT_CONNECTED)
    labels *= mask
    ink = np.bincount(labels.ravel(), strength.ravel(), count + 1)[1:]
    boxes = ndimage.find_objects(labels)
    candidates = [i for i in range(count) if not _is_line(labels[boxes[i]] == i + 1, boxes[i], mask.shape)]
    candidates = candidates or list(range(count))
    main = max(candidates, key=lambda i: ink[i])
    y, x = boxes[main]
    size = max(y.stop - y.start, x.stop - x.start)
    if size < MIN_DIGIT_SIZE:
        raise ValueError(BLANK)
    components = []
    for i in candidates:
        if ink[i] < MIN_COMPONENT_INK * ink[main]:
            continue
        rows, columns = boxes[i]
        vertical = max(rows.start - y.stop, y.start - rows.stop)  # distances from the largest component
        horizontal = max(columns.start - x.stop, x.start - columns.stop)
        shorter, taller = sorted((rows.stop - rows.start, y.stop - y.start))
        if i != main and shorter >= 0.5 * taller and (horizontal > 0.1 * taller or vertical > 0.15 * taller):
            raise ValueError("more than one digit in it: crop it to one")
        if max(vertical, horizontal) < 0.3 * size:
            components.append(i + 1)
    return np.isin(labels, components)


def _is_line(component: Mask, box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Return whether a component crosses the whole picture, and is thin or along an edge: ruled paper or a frame."""
    for across, along in ((0, 1), (1, 0)):
        sides = box[across].start < 2, box[across].stop > shape[across] - 2  # at the picture's edge, or nearly
        long = component.any(axis=across).mean() * component.shape[along] > 0.8 * shape[along]
        thin = component.shape[across] < 0.1 * shape[across]
        edges = component[[0, -1]] if across == 0 else component[:, [0, -1]].T  # (2, length)
        framed = any(side and edge.sum() > 0.8 * shape[along] for side, edge in zip(sides, edges, strict=True))
        if (long and thin) or framed:
            return True
    return False


def _normalise_stroke_width(digit: Pixels) -> Pixels:
    """Dilate or erode a digit (h, w), 0-1, to MNIST's median stroke width if its own is outside MNIST's range."""
    scale = max(digit.shape) / DIGIT_SIZE
    if scale < MIN_STROKE_SCALE:
        return digit
    mask = np.pad(digit > 0.5, 1)
    perimeter = (mask & ~ndimage.minimum_filter(mask, 3)).sum()
    width = 2 * mask.sum() / perimeter / scale  # a stroke has two sides
    change = abs(MEDIAN_STROKE - width) / 2 * scale  # on each side
    if width < MIN_STROKE:
        mask = ndimage.distance_transform_edt(~np.pad(mask, int(change))) <= change
    elif width > MAX_STROKE:
        mask = ndimage.distance_transform_edt(mask) > change
    else:
        return digit
    return np.asarray(mask, dtype=np.float32)


def _centre(digit: Pixels) -> NDArray[np.uint8]:
    """Scale a digit to a longer side of 20 pixels, and place its centre of mass in the middle of 28×28."""
    scale = DIGIT_SIZE / max(digit.shape)
    if scale != 1:
        height, width = (max(1, round(scale * side)) for side in digit.shape)
        resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
        digit = np.asarray(Image.fromarray(digit).resize((width, height), resampling)).clip(0, 1)  # (h, w)
    top, left = (
        min(max(round(IMAGE_SIZE / 2 - centre), 0), IMAGE_SIZE - side)
        for centre, side in zip(ndimage.center_of_mass(digit), digit.shape, strict=True)
    )
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = (255 * digit).round()
    return image
