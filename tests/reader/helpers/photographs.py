"""Synthetic photographs and scans of the data set's digits, in several file formats."""

from io import BytesIO

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

__all__ = ["photograph"]

MODES = ("JPEG", "PNG", "palette", "16-bit", "CMYK", "transparent", "rotated")


def photograph(digit: NDArray[np.uint8], rng: Generator) -> tuple[bytes, str]:
    """Return a picture of a digit (28, 28), 0-255, as the content and suffix of a file.

    Its size, position, colours, light, noise and format are random. The sides are 60 to 2,000 pixels, most of them few,
    which is faster.
    """
    width, height = (int(60 * (2_000 / 60) ** rng.beta(1, 2)) for _ in range(2))
    width, height = (max(side, max(width, height) // 3) for side in (width, height))
    size = int(min(width, height) * rng.uniform(0.35, 0.95))
    size = max(size, 28)
    ink = _ink(digit, size, rng)  # (size, size), 0-1
    left, top = (int(rng.integers(0, side - size + 1)) for side in (width, height))
    strength = np.pad(ink, ((top, height - size - top), (left, width - size - left)))[..., None]

    mode = str(rng.choice(MODES))
    inverted = bool(rng.random() < 0.4)
    dark, light = _colours(rng)
    paper, pen = (dark, light) if inverted else (light, dark)
    picture = paper + (pen - paper) * strength  # (H, W, 3), 0-1
    if mode != "transparent":
        picture = picture * _illumination(height, width, rng)[..., None]
        picture = picture + rng.normal(0, rng.uniform(0, 0.04), picture.shape)
    pixels = (255 * picture.clip(0, 1)).round().astype(np.uint8)
    return _encode(pixels, strength, mode, rng)


def _ink(digit: NDArray[np.uint8], size: int, rng: Generator) -> NDArray[np.float64]:
    """Return the digit enlarged to (size, size), 0-1, with edges as sharp as a pen's."""
    large = Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)
    smooth = np.asarray(large, dtype=float) / 255
    sharpness = rng.uniform(2, 10)
    level = rng.uniform(0.35, 0.6)  # of the edge, which determines the stroke width
    return np.asarray((0.5 + sharpness * (smooth - level)).clip(0, 1))


def _colours(rng: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a dark and a light colour (3,), 0-1."""
    dark = rng.uniform(0, 0.45, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(0, 0.3))
    light = rng.uniform(0.75, 1, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(0.8, 1))
    return dark, light


def _illumination(height: int, width: int, rng: Generator) -> NDArray[np.float64]:
    """Return the illumination (H, W), 0.4-1: a gradient and, in half of the cases, the edge of a shadow."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)) / np.sqrt(0.5)  # -1 to 1
    gradient = 1 - rng.uniform(0, 0.25) * (1 + along)
    if rng.random() < 0.5:
        return np.asarray(gradient)
    angle = rng.uniform(0, 2 * np.pi)
    across = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) - rng.uniform(-0.3, 0.3)
    shadow = 1 / (1 + np.exp((-across / rng.uniform(0.01, 0.1)).clip(-50, 50)))
    return np.asarray(gradient * (1 - rng.uniform(0.1, 0.5) * shadow))


def _encode(pixels: NDArray[np.uint8], strength: NDArray[np.float64], mode: str, rng: Generator) -> tuple[bytes, str]:
    image, file = Image.fromarray(pixels), BytesIO()
    quality = int(rng.integers(40, 96))
    if mode == "JPEG":
        image.save(file, "JPEG", quality=quality)
    elif mode == "CMYK":
        image.convert("CMYK").save(file, "JPEG", quality=quality)
    elif mode == "rotated":  # as stored by a phone held sideways
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise to display
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
    return file.getvalue(), ".jpg" if mode in {"JPEG", "CMYK", "rotated"} else ".png"
