"""A person's image files: found in folders, opened with care, their pixels as a person sees them."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import NoReturn
from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["UnreadableImage", "find_images", "open_image"]

Complain = Callable[[str, str], None]


class UnreadableImage(ValueError):  # noqa: N818  # it is no error of the program
    """A picture that cannot be read, with the reason."""


FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".gif", ".jpg", ".jpeg", ".png", ".pbm", ".pgm", ".ppm", ".tif", ".tiff", ".webp", ".heic", ".heif")
MOST_PIXELS, LONGEST_SIDE = 40_000_000, 65_535
"""Of a picture as it is decoded: half a gigabyte of memory at most. An A4 page has 35 million at 600 dpi."""
ENOUGH = 512
"""Pixels of the longer side that are enough to see a digit; larger pictures are reduced by a whole number to these."""
MIDDLE = 127
ONE_TONE = 20
"""Standard deviation of grey levels, 0-255, below which what is visible of a transparent picture is ink alone."""
_opening = Lock()
"""Held while the filters of warnings are changed, which belong to all threads."""


def find_images(paths: Sequence[str], complain: Complain) -> Iterator[str]:
    """Yield files as they are given, and for a folder the image files in it and its folders, in alphabetical order.

    Args:
        paths: of files and folders.
        complain: is told of what cannot be looked into: name and reason.
    """
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112  # a Path's is_dir raises for a name that is too long
            yield path
            continue
        empty = True
        for name in _in_folder(path, complain):
            empty = False
            yield name
        if empty:
            complain(path, f"no image in this folder: their names end in {', '.join(SUFFIXES)}")


def _in_folder(path: str, complain: Complain) -> Iterator[str]:
    def pass_on(error: OSError) -> None:
        complain(str(error.filename), str(error.strerror))

    seen = set()
    for folder, folders, files in os.walk(path, onerror=pass_on, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            complain(folder, "a link to a folder that is read anyway")
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(folder, name)  # noqa: PTH118  # a Path would shorten what was given


def open_image(path: str) -> NDArray[np.float32]:
    """Return a picture's pixels (H, W, C), 0-255: one channel for grey, three for colours.

    It is turned as its camera was held, what is transparent gets a paper, and more than 16 bits, or a range other than
    0-255, becomes 0-255. Pictures of many pixels are reduced: the longer side is less than 1,024 pixels.

    Raises:
        UnreadableImage: saying why it cannot be read.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe might wait for ever
            _refuse("not a file")
        if not status.st_size:
            _refuse("an empty file")
        # Pillow would warn of many pixels before the limit here can refuse them.
        with _opening, catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(path, formats=FORMATS)
        with image:
            return _pixels(image)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        _refuse("not an image that can be read: save it as JPEG or PNG")
    except Image.DecompressionBombError:
        _refuse("too many pixels: make it smaller")
    except OSError as error:
        _refuse(error.strerror or f"damaged: {error}")
    except Exception as error:  # noqa: BLE001  # decoding foreign bytes may raise anything
        _refuse(f"damaged: {error or type(error).__name__}")


def _refuse(reason: str) -> NoReturn:
    raise UnreadableImage(reason) from None


def _pixels(image: Image.Image) -> NDArray[np.float32]:
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a phone's JPEG with a preview
        _refuse("several pictures in one file: save the one with the digit")
    image.draft(None, (ENOUGH, ENOUGH))  # a JPEG can be decoded at half its size, a quarter or an eighth
    if image.width * image.height > MOST_PIXELS or max(image.size) > LONGEST_SIDE:
        _refuse(f"{image.width:,} x {image.height:,} pixels are too many: make it smaller")
    image.load()
    image = _plain(image)
    image = ImageOps.exif_transpose(image.reduce(max(1, max(image.size) // ENOUGH)))
    pixels = np.asarray(image, dtype=np.float32)
    if image.mode == "F":
        pixels = np.nan_to_num(pixels, posinf=0, neginf=0).clip(0)
        pixels = pixels * (255 / max(float(pixels.max()), 1e-9))
    if image.mode == "RGBA":
        pixels = _on_paper(pixels)
    pixels = pixels if pixels.ndim > 2 else pixels[..., None]  # (H, W) or (H, W, C)
    return pixels[..., :1] if (pixels == pixels[..., :1]).all() else pixels


def _plain(image: Image.Image) -> Image.Image:
    """Return an image of one of the modes L, F, RGB and RGBA."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):  # 16 or 32 bits
        return image.convert("I").convert("F")
    return image if image.mode in {"L", "F", "RGB"} else image.convert("RGB")


def _on_paper(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what a transparent picture (H, W, 4) looks like on paper, (H, W, 3).

    Where ink alone is visible, on black or white, whichever is farther from it; else on the tone of what is visible.
    """
    colours, opaque = pixels[..., :3], pixels[..., 3:] / 255
    visible = colours[opaque[..., 0] >= 0.9 * max(opaque.max(), 0.1)]  # (N, 3), without the edges of ink
    if not len(visible):
        return np.full_like(colours, 255)
    if (tones := visible.mean(axis=1)).std() < ONE_TONE:
        paper = np.full(3, 0 if tones.mean() > MIDDLE else 255)
    else:
        paper = np.median(visible, axis=0)
    return np.asarray(colours * opaque + paper * (1 - opaque), dtype=np.float32)
