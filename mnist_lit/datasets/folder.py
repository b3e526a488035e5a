"""A folder of images, in subfolders named after their classes: read once, and kept in memory and in a cache file.

The layout is that of torchvision's ImageFolder: `PATH/train/CLASS/*`, `PATH/test/CLASS/*` and, for validation,
`PATH/val/CLASS/*`. Without `PATH/test`, or with the classes directly in PATH, a tenth of the images is the test set.
"""

import ctypes
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_lit.datasets.dataset import Fit, ImageDataset, Kind
from mnist_lit.datasets.images import open_square, read_images
from mnist_lit.datasets.layout import PARTS, Listing, list_images
from mnist_lit.datasets.sampling import split
from mnist_lit.system.files import write_atomically

__all__ = ["FolderDataset", "read_folder", "total_memory"]

IMAGE_SIZE = 32
MAX_IMAGE_SIZE = 512
"""Larger images are reduced when they are opened."""
TEST_FRACTION, TEST_SEED = 10, 0
"""One in ten images is held out as the test set, by its own seed: no setting may move one into the training set."""
MEMORY_FRACTION = 4
"""The images may take a quarter of the memory: while they are read, there are two copies."""
VERSION = b"1"  # of the cache: with another one, the images are read again
MAX_REPORTED = 20  # unreadable files that are listed one by one
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderDataset(ImageDataset):
    """The images of a folder, in memory.

    Args:
        train: pixels uint8 (N, C, H, W), 0-255, and labels int64 (N,) of the training set, validation included.
        test: pixels and labels of the test set.
        hashes: a number for each training image that depends on its pixels, int64 (N,).
    """

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    hashes: Tensor
    kind: Kind = "photographs"

    def fetch(self, data_dir: str | Path, mirrors: Sequence[str] | None = None) -> None:
        """Do nothing: the images are in memory."""

    def read(self, data_dir: str | Path, *, train: bool) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return pixels and labels, see `ImageDataset.read`."""
        return self.train if train else self.test

    def split(self, labels: Tensor, val_size: int, seed: int) -> tuple[list[int], list[int]]:
        """Return the indices of the training and the validation images, and warn of those that are in both."""
        if first := len(labels) - self.own_val_size if self.own_val_size else 0:
            _, order = split(labels[first:], val_size, seed)  # all of them, shuffled
            train, val = list(range(first)), [first + index for index in order]
        else:
            train, val = split(labels, val_size, seed)
        _warn_of_repeated(self.name, "validation", self.hashes[val], self.hashes[train])
        return train, val


def read_folder(
    path: str, image_size: int | None = None, cache: str | Path = "data", fit: Fit = "crop"
) -> FolderDataset:
    """Read the images of a folder: `PATH/train/CLASS/*`, `PATH/val/…` and `PATH/test/…`, or `PATH/CLASS/*`.

    Each image is scaled to a square of `image_size` pixels. Files that cannot be read are listed and left out. The
    decoded images are kept in a file, which is used as long as the names, sizes and times of the image files stay the
    same.

    Args:
        path: path of the folder.
        image_size: height and width in pixels, up to 512; by default 32.
        cache: folder of the file with the decoded images.
        fit: whether an image is cropped to the square in its middle, or made square by black bars (`pad`).

    Raises:
        ValueError: if the size is out of range, the folder has another layout, or the images do not fit in memory.
    """
    side = IMAGE_SIZE if image_size is None else image_size
    if not 1 <= side <= MAX_IMAGE_SIZE:
        raise ValueError(f"image_size must be 1 to {MAX_IMAGE_SIZE}, got {side}")
    listing = list_images(Path(path).expanduser())
    _check_memory(path, len(listing.files), side)
    pixels, unreadable = _load(path, listing, side, fit, Path(cache))
    for line in list(unreadable.values())[:MAX_REPORTED]:
        log.warning("%s: left out", line)
    if (more := len(unreadable) - MAX_REPORTED) > 0:
        log.warning("%s more images that cannot be read are left out", f"{more:,}")
    readable = np.setdiff1d(np.arange(len(listing.files)), list(unreadable))
    labels = torch.from_numpy(listing.labels[readable])
    sizes: list[int] = np.bincount(listing.parts[readable], minlength=len(PARTS)).tolist()
    if not sizes[0]:
        raise ValueError(f"{path}: none of its images to train on can be read")
    trained = sizes[0] + sizes[1]
    chosen: Sequence[slice | list[int]] = (slice(trained), slice(trained, None))  # without a copy
    if listing.parts[-1] < PARTS.index("test"):
        sizes[2] = max(1, sizes[0] // TEST_FRACTION)
        kept, held_out = split(labels[: sizes[0]], sizes[2], TEST_SEED)
        chosen = ([*kept, *range(sizes[0], trained)], sorted(held_out))
    train, test = parts = [(pixels[part], labels[part]) for part in chosen]
    fitted = train[1][: len(train[1]) - sizes[1]]
    for name, count in zip(listing.classes, fitted.bincount(minlength=len(listing.classes)), strict=True):
        if not count:
            raise ValueError(f"{path}: class {name} has no image to train on, or a single one that is held out to test")
    if not len(test[1]):
        raise ValueError(f"{path}: no image to test")
    hashes = [_hash(part) for part, _ in parts]
    _warn_of_repeated(path, "test", hashes[1], hashes[0])
    _warn_of_ambiguous(path, torch.cat(hashes), torch.cat([train[1], test[1]]))
    contents = zip(hashes, parts, strict=True)
    described: list[list[Any]] = [[listing.classes, found.tolist(), kept.tolist()] for found, (_, kept) in contents]
    if sizes[1]:
        described[0].append(sizes[1])
    return FolderDataset(
        name=path,
        classes=listing.classes,
        shape=(train[0].shape[1], side, side),
        train_size=len(train[1]),
        test_size=len(test[1]),
        own_val_size=sizes[1],
        test_names=np.array(listing.files, dtype=object)[readable][chosen[1]].tolist(),
        digests=[sha256(json.dumps(part).encode()).hexdigest() for part in described],
        train=train,
        test=test,
        hashes=hashes[0],
    )


def _hash(pixels: Tensor) -> Tensor:
    """Return a number for each image, int64 (N,), which depends on its pixels."""
    rows = pixels.flatten(1).numpy()
    return torch.tensor([int.from_bytes(sha256(row).digest()[:8], "little", signed=True) for row in rows])


def _warn_of_repeated(path: str, part: str, hashes: Tensor, trained: Tensor) -> None:
    if repeated := int(torch.isin(hashes, trained).sum()):
        log.warning("%s: %s %s images are among the training images too", path, f"{repeated:,}", part)


def _warn_of_ambiguous(path: str, hashes: Tensor, labels: Tensor) -> None:
    pairs = np.unique(np.stack([hashes, labels]), axis=1)  # (2, P), of an image and a class
    if ambiguous := int((np.unique(pairs[0], return_counts=True)[1] > 1).sum()):
        log.warning("%s: %s images are in more than one class", path, f"{ambiguous:,}")


def _check_memory(path: str, number: int, side: int) -> None:
    """Raise ValueError if the images of a folder would take too much memory."""
    needed, memory = number * 3 * side**2, total_memory()
    if memory and needed > memory // MEMORY_FRACTION:
        raise ValueError(
            f"{path}: {number:,} images of 3 × {side} × {side} bytes are {needed / 1e9:.1f} GB, more than a quarter of "
            f"this machine's {memory / 1e9:.1f} GB: give a smaller --data.image_size, or see docs/scaling.md"
        )


def total_memory() -> int | None:
    """Return the bytes of memory of this machine, or None where the system does not say."""
    if sys.platform == "win32":
        # https://learn.microsoft.com/windows/win32/api/sysinfoapi/ns-sysinfoapi-memorystatusex
        status = (ctypes.c_uint64 * 8)(64)  # the first number: dwLength and dwMemoryLoad, of 32 bits each
        return status[1] if ctypes.windll.kernel32.GlobalMemoryStatusEx(status) else None  # ullTotalPhys
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
        return pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else None
    except (OSError, ValueError):
        return None


def _load(path: str, listing: Listing, side: int, fit: Fit, cache: Path) -> tuple[Tensor, dict[int, str]]:
    """Return the pixels of the readable files, and the reason for each other one by its number."""
    folder = Path(path).expanduser().resolve()
    place = sha256(f"{folder} {side} {fit}".encode(errors="surrogateescape")).hexdigest()[:12]
    file = cache / "folders" / f"{folder.name[:40]}-{place}.npz"
    key = _key(listing.files, f"{Path(path).expanduser()}{os.sep}")
    if found := _read_cache(file, key):
        again = _prepare([listing.files[number] for number in found[1]], side, fit)
        if all(isinstance(result, ValueError) for result in again):
            return found
    pixels, unreadable = _decode(listing.files, side, fit)
    content = BytesIO()
    np.savez(content, key=key, pixels=pixels, unreadable=json.dumps(list(unreadable.items())))
    try:
        write_atomically(file, content.getbuffer())
    except OSError as error:
        log.warning("%s: %s: the images will be read again at the next start", file, error.strerror)
    return torch.from_numpy(pixels), unreadable


def _key(files: Sequence[str], folder: str) -> str:
    """Return a checksum of the names, sizes and times of files; the names are relative to `folder`."""
    found = sha256(VERSION)
    for name in files:
        try:
            status = os.stat(name)  # noqa: PTH116  # half the time of a Path's
            state = f"{status.st_size}\0{status.st_mtime_ns}"
        except OSError:  # a link to nowhere, say: `open_image` tells
            state = ""
        found.update(f"{name.removeprefix(folder)}\0{state}\0".encode(errors="surrogateescape"))
    return found.hexdigest()


def _read_cache(file: Path, key: str) -> tuple[Tensor, dict[int, str]] | None:
    """Return what `_load` has kept, or None if it is damaged, or of other images than these files."""
    try:
        # np.load would leave a damaged file open. Zip files have checksums.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            if str(content["key"]) != key:
                return None
            pixels, unreadable = content["pixels"], dict(json.loads(str(content["unreadable"])))
            return torch.from_numpy(pixels), unreadable
    except OSError:  # none, or none that may be read
        return None
    except (ValueError, TypeError, KeyError, EOFError, RuntimeError, MemoryError, BadZipFile):
        pass
    log.warning("%s is damaged: reading the images again", file)
    return None


def _decode(files: Sequence[str], side: int, fit: Fit) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Return the pixels (N, C, side, side) of the readable files, and the reason for each other one by its number."""
    pixels = np.empty((len(files), 3, side, side), dtype=np.uint8)
    unreadable: dict[int, str] = {}
    coloured, done = False, 0
    for number, result in enumerate(_prepare(files, side, fit, desc="reading images")):
        if isinstance(result, ValueError):
            unreadable[number] = f"{files[number]}: {result}"
        else:
            pixels[done] = result  # one channel is repeated
            coloured |= len(result) > 1
            done += 1
    kept = pixels[:done] if coloured else pixels[:done, :1].copy()
    return kept, unreadable


def _prepare(files: Sequence[str], side: int, fit: Fit, **bar: Any) -> Iterator[NDArray[np.uint8] | ValueError]:
    return read_images(files, lambda path: open_square(path, side, fit=fit), disable=None, **bar)
