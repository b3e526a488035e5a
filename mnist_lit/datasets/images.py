"""Image files: found in folders, validated, and decoded to pixels as an image viewer shows them."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from mnist_lit.datasets.dataset import Fit

__all__ = [
    "SUFFIXES",
    "UnreadableImageError",
    "crop_square",
    "describe_unread",
    "find_images",
    "is_left_behind",
    "open_image",
    "open_scaled",
    "open_square",
    "read_images",
    "to_image",
]

OnError = Callable[[str, str], None]
Result = TypeVar("Result")

Image.init()  # all formats that this Pillow was built with
FORMATS = sorted({"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"} & Image.OPEN.keys())
SUFFIXES = tuple(s for s, name in sorted(Image.registered_extensions().items()) if name in {*FORMATS, "MPO"})
"""The suffixes of image files, in lower case. Other files in a folder are not read; their number is printed."""
NOT_THE_USERS = {"__MACOSX", "lost+found", "Thumbs.db", "ehthumbs.db", "desktop.ini"}
"""Names that systems leave in folders, besides those that begin with a dot, and folders with @, # or $."""
MAX_BYTES, MAX_SIDE = 320_000_000, 65_535
"""The limits of an image: bytes of its decoded pixels and their copy in another mode, and pixels of a side.

An A3 page has 70 million pixels at 600 dpi."""
BYTES = {"1": 2, "L": 1, "RGB": 4}  # per pixel in memory, with its copy; other modes have 8
CHUNK_SIZE = 64  # files prepared before a signal is handled
REDUCED_SIDE = 512
"""Larger images are reduced by an integer factor; their longer side keeps at least this number of pixels."""
RANGES = (1, 255, 65_535, 2**32)
"""Largest values of images with 32 bits: a picture is taken to have the first of these ranges that holds its values."""
UNIFORM_TONE = 20
"""Standard deviation of grey levels, 0-255, below which the visible pixels of a transparent image are ink alone."""
_warning_filters = Lock()
"""Held while the warning filters are changed, which all threads share."""


class UnreadableImageError(ValueError):
    """An image file that cannot be read, with the reason."""


def is_left_behind(name: str, *, folder: bool = False) -> bool:
    """Return whether a system, an editor or a file server has left a file or folder of this name.

    >>> is_left_behind("._1.png"), is_left_behind("@eaDir", folder=True), is_left_behind("#1.png")
    (True, True, False)
    """
    return name.startswith((".", "@", "#", "$") if folder else ".") or name in NOT_THE_USERS


def find_images(paths: Sequence[str], on_error: OnError, unread: Counter[str]) -> Iterator[str]:
    """Yield files as given, and the image files in folders and their subfolders, in alphabetical order.

    Args:
        paths: paths of files and folders.
        on_error: called with the path and the reason for each folder that is not searched or has no images.
        unread: counts the files in folders that are not read, by their suffixes in lower case.
    """
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112  # a Path's is_dir raises for a name that is too long
            yield from _walk(path, on_error, unread)
        else:
            yield path


def describe_unread(unread: Counter[str]) -> str:
    """Return a sentence about the files that are not read, counted by suffix.

    >>> describe_unread(Counter({".heic": 10, "": 1}))
    '10 .heic files, 1 file without a suffix are not read'
    """
    listed = []
    for suffix, number in unread.items():
        files = "file" if number == 1 else "files"
        listed.append(f"{number:,} {suffix} {files}" if suffix else f"{number:,} {files} without a suffix")
    return f"{', '.join(listed)} {'is' if unread.total() == 1 else 'are'} not read"


def _walk(path: str, on_error: OnError, unread: Counter[str]) -> Iterator[str]:
    seen, number = set(), 0
    for folder, folders, files in os.walk(
        path, onerror=lambda error: on_error(str(error.filename), str(error.strerror)), followlinks=True
    ):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            on_error(folder, "a link to a folder that is searched anyway")
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_left_behind(name, folder=True))
        for name in sorted(name for name in files if not is_left_behind(name)):
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES:
                number += 1
                yield os.path.join(folder, name)  # noqa: PTH118  # a Path would normalise the given path
            else:
                unread[suffix] += 1
    if seen and not number:  # otherwise it could not be opened, which is reported
        on_error(path, f"no image in this folder: their names end in {', '.join(SUFFIXES)}")


def open_image(path: str, *, for_square: bool = False) -> NDArray[np.float32]:
    """Return the pixels (H, W, C) of an image, 0-255, with one channel for grey and three for colour.

    The image is rotated by its EXIF orientation, and transparency is replaced by a background. 16 bits are scaled to
    0-255, as are the usual ranges of 32 bits: 0-1, 0-255, 0-65,535 or all of them. Large images are reduced to a
    longer side of less than 1,024 pixels.

    Args:
        path: path of the file.
        for_square: whether the square in the middle is used: then it is the shorter side that is reduced so.

    Raises:
        UnreadableImageError: with the reason.
    """
    pixels, _ = open_scaled(path, REDUCED_SIDE, min if for_square else max)
    return pixels


def open_scaled(
    path: str, least: int, side_of: Callable[[Sequence[int]], int] = max
) -> tuple[NDArray[np.float32], float]:
    """Return the pixels of an image as `open_image` does, reduced to another size, and by how much.

    A reduced image keeps at least `least` pixels of its longer side (max) or its shorter side (min). The second result
    is the number of the file's pixels in one of these pixels, along each side.

    Raises:
        UnreadableImageError: with the reason.
    """
    try:
        with _open_file(path) as image:
            length = max(image.size)
            pixels = _decode(image, side_of, least)
            return pixels, length / max(pixels.shape[:2])
    except (UnreadableImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        reason = "not a supported image: save it as JPEG or PNG"
    except Image.DecompressionBombError:
        reason = "too many pixels: make it smaller"
    except OSError as error:
        reason = error.strerror or f"damaged: {error}"
    except Exception as error:  # noqa: BLE001  # decoding foreign bytes may raise anything
        reason = f"damaged: {error or type(error).__name__}"
    raise UnreadableImageError(reason)


def read_images(files: Sequence[str], read: Callable[[str], Result], **bar: Any) -> Iterator[Result | ValueError]:
    """Read image files in threads: Pillow, NumPy and SciPy release the GIL while they compute.

    Yields, for each file in order, what `read` returns or the ValueError that it raises; `bar` are arguments of tqdm.
    """

    def attempt(path: str) -> Result | ValueError:
        try:
            return read(path)
        except ValueError as error:
            return error

    threads = ThreadPoolExecutor(os.cpu_count())
    try:
        with tqdm(total=len(files), leave=False, **bar) as progress:
            for first in range(0, len(files), CHUNK_SIZE):
                for result in threads.map(attempt, files[first : first + CHUNK_SIZE]):
                    progress.update()
                    yield result
    finally:
        threads.shutdown(cancel_futures=True)


def open_square(path: str, side: int, channels: int | None = None, fit: Fit = "crop") -> NDArray[np.uint8]:
    """Return an image as a square of `side` pixels, (C, side, side), with `channels` C, see `crop_square`.

    With `pad`, black bars make it square, and nothing of it is lost.

    Raises:
        UnreadableImageError: with the reason.
    """
    pixels = open_image(path, for_square=fit == "crop")
    if fit == "pad":
        missing = [max(pixels.shape[:2]) - length for length in pixels.shape[:2]]
        pixels = np.pad(pixels, [*((number // 2, number - number // 2) for number in missing), (0, 0)])
    return crop_square(pixels, side, channels)


def to_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return pixels (H, W, C) as an image, grey or in colour."""
    return Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[..., 0])


def crop_square(pixels: NDArray[np.float32], side: int, channels: int | None = None) -> NDArray[np.uint8]:
    """Return the square in the middle of an image, scaled.

    Args:
        pixels: 0-255, (H, W, C).
        side: height and width of the result, (C, side, side).
        channels: channels C of the result, 1 for grey or 3 for colour; by default those of `pixels`.
    """
    image = to_image(pixels.round().clip(0, 255).astype(np.uint8))
    if channels:
        image = image.convert("RGB" if channels > 1 else "L")
    scaled = np.array(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))
    return scaled.reshape(side, side, -1).transpose(2, 0, 1)


def _open_file(path: str) -> Image.Image:
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe might block forever
        raise UnreadableImageError("not a file")
    if not status.st_size:
        raise UnreadableImageError("an empty file")
    # Pillow would warn of many pixels before they are counted here.
    with _warning_filters, catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        return Image.open(path, formats=FORMATS)


def _decode(image: Image.Image, side_of: Callable[[Sequence[int]], int], reduced_side: int) -> NDArray[np.float32]:
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a phone's JPEG with a preview
        raise UnreadableImageError("several images in one file: save the one to classify")
    image.draft(None, (reduced_side, reduced_side))  # a JPEG can be decoded at 1/2, 1/4 or 1/8 of its size
    needed = image.width * image.height * (8 if image.has_transparency_data else BYTES.get(image.mode, 8))
    if needed > MAX_BYTES or max(image.size) > MAX_SIDE:
        raise UnreadableImageError(f"{image.width:,} x {image.height:,} pixels are too many: make it smaller")
    image.load()
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"})  # 16 bits
    image = _convert(image)
    image = ImageOps.exif_transpose(image.reduce(max(1, side_of(image.size) // reduced_side)))
    pixels = np.asarray(image, dtype=np.float32)
    if image.mode == "F":
        pixels = np.nan_to_num(pixels, posinf=0, neginf=0).clip(0)
        # Not by its own maximum, which would make a dark picture equal to a bright one.
        # A computed picture may be a little beyond 1.
        brightest = 65_535 if deep else next((most for most in RANGES if pixels.max() <= 1.1 * most), pixels.max())
        pixels = pixels * (255 / brightest)
    if image.mode == "RGBA":
        pixels = _composite(pixels)
    pixels = np.atleast_3d(pixels)  # (H, W, C)
    return pixels[..., :1] if (pixels == pixels[..., :1]).all() else pixels


def _convert(image: Image.Image) -> Image.Image:
    """Convert an image to mode L, F, RGB or RGBA."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):  # 16 or 32 bits
        return image.convert("I").convert("F")
    return image if image.mode in {"L", "F", "RGB"} else image.convert("RGB")


def _composite(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Composite a transparent image (H, W, 4) over a background, (H, W, 3).

    If ink alone is visible, the background is black or white, whichever contrasts more, else the median colour.
    """
    colours, alpha = pixels[..., :3], pixels[..., 3:] / 255
    visible = colours[alpha[..., 0] >= 0.9 * max(alpha.max(), 0.1)]  # (N, 3), without the soft edges of strokes
    if not len(visible):
        return np.full_like(colours, 255)
    if (tones := visible.mean(axis=1)).std() < UNIFORM_TONE:
        background = np.full(3, 0 if tones.mean() > 127 else 255)
    else:
        background = np.median(visible, axis=0)
    return np.asarray(colours * alpha + background * (1 - alpha), dtype=np.float32)
