"""A folder of images, in subfolders named after their classes: read once, and kept in memory and in a cache file.

The layout is that of torchvision's ImageFolder: `PATH/train/CLASS/*` and `PATH/test/CLASS/*`. Without `PATH/test`, or
with the classes directly in PATH, a tenth of the images is the test set.
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

from mnist_lit.datasets.dataset import ImageDataset, Kind
from mnist_lit.datasets.images import SUFFIXES, crop_square, find_images, open_image, read_images
from mnist_lit.datasets.sampling import split
from mnist_lit.system.errors import printable
from mnist_lit.system.files import write_atomically

__all__ = ["FolderDataset", "read_folder", "total_memory"]

IMAGE_SIZE = 32
MAX_IMAGE_SIZE = 512
"""Larger images are reduced when they are opened."""
TEST_FRACTION, TEST_SEED = 10, 0
"""One in ten images is held out as the test set, by a seed of its own: no setting may move it into the training set."""
MEMORY_FRACTION = 4
"""The images may take a quarter of the memory: while they are read, they are there twice."""
PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""Names of folders that are not classes if they contain folders."""
HIDDEN = (".", "__MACOSX")
VERSION = b"1"  # of the decoding: another one reads the images again
MAX_REPORTED = 20  # unreadable files that are listed one by one
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderDataset(ImageDataset):
    """The images of a folder, in memory.

    Args:
        train: pixels uint8 (N, C, H, W), 0-255, and labels int64 (N,) of the training set, validation included.
        test: the same of the test set.
    """

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    kind: Kind = "photographs"

    def fetch(self, data_dir: str | Path, mirrors: Sequence[str] | None = None) -> None:
        """Do nothing: the images are in memory."""

    def read(self, data_dir: str | Path, *, train: bool) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return pixels and labels, see `ImageDataset.read`."""
        return self.train if train else self.test


@dataclass(frozen=True)
class Listing:
    """The image files of a folder.

    Args:
        classes: their names.
        files: paths, those of the training set first.
        labels: int64 (N,).
        train_size: number of files for training; with `held_out`, those of the test set are among them.
        held_out: whether there is no folder of test images.
    """

    classes: Sequence[str]
    files: Sequence[str]
    labels: NDArray[np.int64]
    train_size: int
    held_out: bool


def read_folder(path: str, image_size: int | None = None, cache: str | Path = "data") -> FolderDataset:
    """Read the images of a folder: `PATH/train/CLASS/*` and `PATH/test/CLASS/*`, or `PATH/CLASS/*`.

    Each image is cropped to the square in its middle, which is scaled to `image_size` pixels. Files that cannot be read
    are listed and left out. The decoded images are kept in a file, which is used as long as the names, sizes and
    times of the image files stay the same.

    Args:
        path: path of the folder.
        image_size: height and width in pixels, up to 512; by default 32.
        cache: folder of the file with the decoded images.

    Raises:
        ValueError: if the size is out of range, the folder has another layout, or the images do not fit in memory.
    """
    side = IMAGE_SIZE if image_size is None else image_size
    if not 1 <= side <= MAX_IMAGE_SIZE:
        raise ValueError(f"image_size must be 1 to {MAX_IMAGE_SIZE}, got {side}")
    listing = _list(Path(path).expanduser())
    _check_memory(path, len(listing.files), side)
    pixels, unreadable = _load(path, listing, side, Path(cache))
    for line in list(unreadable.values())[:MAX_REPORTED]:
        log.warning("%s: left out", printable(line))
    if (more := len(unreadable) - MAX_REPORTED) > 0:
        log.warning("%s more images that cannot be read are left out", f"{more:,}")
    readable = np.setdiff1d(np.arange(len(listing.files)), list(unreadable))
    labels = torch.from_numpy(listing.labels[readable])
    train_size = int((readable < listing.train_size).sum())
    if not len(labels):
        raise ValueError(f"{path}: none of its images can be read")
    chosen: Sequence[slice | list[int]] = (slice(train_size), slice(train_size, None))  # without a copy
    if listing.held_out:
        chosen = split(labels, max(1, len(labels) // TEST_FRACTION), TEST_SEED)
    train, test = parts = [(pixels[part], labels[part]) for part in chosen]
    for name, count in zip(listing.classes, train[1].bincount(minlength=len(listing.classes)), strict=True):
        if not count:
            raise ValueError(f"{path}: class {name} has no image to train on, or a single one that is held out to test")
    if not len(test[1]):
        raise ValueError(f"{path}: no image to test")
    hashes = [_hash(part) for part, _ in parts]
    if repeated := int(torch.isin(hashes[1], hashes[0]).sum()):
        log.warning("%s: %s test images are among the training images too", printable(path), f"{repeated:,}")
    contents = zip(hashes, parts, strict=True)
    described = ([listing.classes, found.tolist(), kept.tolist()] for found, (_, kept) in contents)
    return FolderDataset(
        name=path,
        classes=listing.classes,
        shape=(train[0].shape[1], side, side),
        train_size=len(train[1]),
        test_size=len(test[1]),
        test_names=np.array(listing.files, dtype=object)[readable][chosen[1]].tolist(),
        digests=[sha256(json.dumps(part).encode()).hexdigest() for part in described],
        train=train,
        test=test,
    )


def _hash(pixels: Tensor) -> Tensor:
    """Return a number for each image, int64 (N,), which depends on its pixels."""
    rows = pixels.flatten(1).numpy()
    return torch.tensor([int.from_bytes(sha256(row).digest()[:8], "little", signed=True) for row in rows])


def _list(path: Path) -> Listing:
    train = path / "train"
    root = train if train.is_dir() and _folders(train) else path  # without folders in it, a class of trains
    classes = _folders(root)
    if len(classes) < 2:
        found = f"only the class {classes[0]}" if classes else "no folders of classes"
        raise ValueError(f"{root} has {found}: expected {root / 'CLASS' / '*.jpg'} for two or more classes")
    held_out = root == path or not (path / "test").is_dir()
    if root == path and (parts := [name for name in classes if name.lower() in PARTS and _folders(path / name)]):
        raise ValueError(f"{path / parts[0]} has folders: if it is a part of the data, name the parts train and test")
    if root != path:
        for name in [name for name in _folders(path) if name.lower() not in {"train", "test"}]:
            log.warning("%s is not read: only train and test are", printable(str(path / name)))
    if not held_out and (others := set(_folders(path / "test")) ^ set(classes)):
        names = ", ".join(sorted(others))
        raise ValueError(f"{path}: train and test have other classes: {names} in one of them only")
    if loose := sum(entry.name.lower().endswith(SUFFIXES) for entry in os.scandir(root)):
        log.warning("%s: %s images are not read: they are in no folder of a class", printable(str(root)), f"{loose:,}")
    files: list[str] = []
    labels: list[int] = []
    train_size = 0
    for part in [root] if held_out else [root, path / "test"]:
        for label, class_name in enumerate(classes):
            images = list(find_images([str(part / class_name)], _refuse))
            files += images
            labels += [label] * len(images)
        train_size = train_size or len(files)
    return Listing(classes, files, np.array(labels), train_size, held_out)


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith(HIDDEN))


def _refuse(path: str, reason: str) -> None:
    raise ValueError(f"{path}: {reason}")


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


def _load(path: str, listing: Listing, side: int, cache: Path) -> tuple[Tensor, dict[int, str]]:
    """Return the pixels of the readable files, and the reason for each other one by its number."""
    folder = Path(path).expanduser().resolve()
    place = sha256(f"{folder} {side}".encode(errors="surrogateescape")).hexdigest()[:12]
    file = cache / "folders" / f"{folder.name[:40]}-{place}.npz"
    key = _key(listing.files, f"{Path(path).expanduser()}{os.sep}")
    if found := _read_cache(file, key):
        again = _prepare([listing.files[number] for number in found[1]], side)
        if all(isinstance(result, ValueError) for result in again):
            return found
    pixels, unreadable = _decode(listing.files, side)
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
    """Return what `_load` has kept, or None if it is damaged, or of other images."""
    try:
        # np.load would leave a damaged file open. Zip files have checksums.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            if str(content["key"]) == key:
                return torch.from_numpy(content["pixels"]), dict(json.loads(str(content["unreadable"])))
    except OSError:  # none, or none that may be read
        return None
    except (ValueError, KeyError, EOFError, RuntimeError, BadZipFile):
        log.warning("%s is damaged: reading the images again", file)
    return None


def _decode(files: Sequence[str], side: int) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Return the pixels (N, C, side, side) of the readable files, and the reason for each other one by its number."""
    pixels = np.empty((len(files), 3, side, side), dtype=np.uint8)
    unreadable: dict[int, str] = {}
    coloured, done = False, 0
    for number, result in enumerate(_prepare(files, side, desc="reading images")):
        if isinstance(result, ValueError):
            unreadable[number] = f"{files[number]}: {result}"
        else:
            pixels[done] = result  # one channel is repeated
            coloured |= len(result) > 1
            done += 1
    kept = pixels[:done] if coloured else pixels[:done, :1].copy()
    return kept, unreadable


def _prepare(files: Sequence[str], side: int, **bar: Any) -> Iterator[NDArray[np.uint8] | ValueError]:
    def read(path: str) -> NDArray[np.uint8]:
        return crop_square(open_image(path, for_square=True), side)

    return read_images(files, read, disable=None, **bar)
