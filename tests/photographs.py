"""Digits of the data set as people's pictures of digits: the same digit, on paper, in some light, in some file."""

from io import BytesIO

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

__all__ = ["photograph"]

MODES = ("JPEG", "PNG", "palette", "16-bit", "CMYK", "transparent", "turned")


def photograph(digit: NDArray[np.uint8], chance: Generator) -> tuple[bytes, str]:
    """Return a picture of a digit (28, 28), 0-255, as a file's content and suffix.

    By chance it is larger, off centre, coloured, inverted, shadowed, noisy.
    Pictures are 60 to 2,000 pixels a side; most are small, so that many can be made.
    """
    width, height = (int(60 * (2_000 / 60) ** chance.beta(1, 2)) for _ in range(2))
    width, height = (max(side, max(width, height) // 3) for side in (width, height))
    size = int(min(width, height) * chance.uniform(0.35, 0.95))
    size = max(size, 28)
    ink = _ink(digit, size, chance)  # (size, size), 0-1
    left, top = (int(chance.integers(0, side - size + 1)) for side in (width, height))
    strength = np.pad(ink, ((top, height - size - top), (left, width - size - left)))[..., None]

    mode = str(chance.choice(MODES))
    light = bool(chance.random() < 0.4)
    dark_colour, light_colour = _colours(chance)
    paper, pen = (dark_colour, light_colour) if light else (light_colour, dark_colour)
    picture = paper + (pen - paper) * strength  # (H, W, 3), 0-1
    if mode != "transparent":
        picture = picture * _light(height, width, chance)[..., None]
        picture = picture + chance.normal(0, chance.uniform(0, 0.04), picture.shape)
    pixels = (255 * picture.clip(0, 1)).round().astype(np.uint8)
    return _file(pixels, strength, mode, chance)


def _ink(digit: NDArray[np.uint8], size: int, chance: Generator) -> NDArray[np.float64]:
    """Return how much ink is where, with edges as sharp as a pen's."""
    large = Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)
    smooth = np.asarray(large, dtype=float) / 255
    sharpness = chance.uniform(2, 10)
    level = chance.uniform(0.35, 0.6)  # of the edge: thicker or thinner strokes
    return np.asarray((0.5 + sharpness * (smooth - level)).clip(0, 1))


def _colours(chance: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a dark and a light colour (3,), 0-1, which differ clearly in brightness."""
    dark = chance.uniform(0, 0.45, 3) if chance.random() < 0.5 else np.full(3, chance.uniform(0, 0.3))
    light = chance.uniform(0.75, 1, 3) if chance.random() < 0.5 else np.full(3, chance.uniform(0.8, 1))
    return dark, light


def _light(height: int, width: int, chance: Generator) -> NDArray[np.float64]:
    """Return how much light falls where, (H, W), 0.4-1: a slope and, at times, the edge of a shadow."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    angle = chance.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)) / np.sqrt(0.5)  # -1 to 1
    falling = 1 - chance.uniform(0, 0.25) * (1 + along)
    if chance.random() < 0.5:
        return np.asarray(falling)
    angle = chance.uniform(0, 2 * np.pi)
    across = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) - chance.uniform(-0.3, 0.3)
    shadow = 1 / (1 + np.exp((-across / chance.uniform(0.01, 0.1)).clip(-50, 50)))
    return np.asarray(falling * (1 - chance.uniform(0.1, 0.5) * shadow))


def _file(pixels: NDArray[np.uint8], strength: NDArray[np.float64], mode: str, chance: Generator) -> tuple[bytes, str]:
    image, file = Image.fromarray(pixels), BytesIO()
    quality = int(chance.integers(40, 96))
    if mode == "JPEG":
        image.save(file, "JPEG", quality=quality)
    elif mode == "CMYK":
        image.convert("CMYK").save(file, "JPEG", quality=quality)
    elif mode == "turned":  # as a phone held sideways stores it
        exif = Image.Exif()
        exif[0x0112] = 6  # Orientation: turn by 90 degrees clockwise to show
        image.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=quality, exif=exif)
    elif mode == "palette":
        image.quantize(32).save(file, "PNG")
    elif mode == "16-bit":
        grey = np.asarray(image.convert("L"), dtype=np.uint16)
        Image.fromarray(grey * 257).save(file, "PNG")
    elif mode == "transparent":
        image.putalpha(Image.fromarray((255 * strength[..., 0]).astype(np.uint8)))
        image.save(file, "PNG")
    else:
        image.save(file, "PNG")
    return file.getvalue(), ".jpg" if mode in {"JPEG", "CMYK", "turned"} else ".png"
