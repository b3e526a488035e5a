"""Where the images of a folder are: its parts `train`, `val` and `test`, and the classes in each of them."""

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category, normalize

import numpy as np
from numpy.typing import NDArray

from mnist_lit.datasets.dataset import MAX_CLASSES
from mnist_lit.datasets.images import SUFFIXES, describe_unread, find_images, is_left_behind

__all__ = ["PARTS", "Listing", "list_images"]

TRAIN, VAL, TEST = PARTS = ("train", "val", "test")
PART_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""The folders that may contain a part."""
PART_WORD = re.compile("train|test|val|holdout|dev", re.IGNORECASE)
"""Matches the names of folders that are parts, such as `training_set`, rather than classes."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """The image files of a folder.

    Args:
        classes: their names.
        files: paths.
        labels: int64 (N,).
        parts: of each file, the index of its part in `PARTS`, int64 (N,), in ascending order.
    """

    classes: Sequence[str]
    files: Sequence[str]
    labels: NDArray[np.int64]
    parts: NDArray[np.int64]


def list_images(path: Path) -> Listing:
    """Return the images of a folder.

    Raises:
        ValueError: if it has another layout.
    """
    folders = _folders(path)
    given = {part: [name for name in names if name in folders] for part, names in PART_NAMES.items()}
    if given[TRAIN] and _folders(path / TRAIN):  # a folder `train` without subfolders may be a class
        if len(given[VAL]) > 1:
            raise ValueError(f"{path} has {' and '.join(given[VAL])}: keep one folder of validation images")
        roots = {part: path / names[0] for part, names in given.items() if names}
        for name in folders:
            if path / name not in roots.values() and PART_WORD.search(name) and _folders(path / name):
                raise ValueError(f"{path / name}: if this is a part of the data, name it val or test, else move it")
            if path / name not in roots.values():
                log.warning("%s is not read: only train, val and test are", path / name)
    else:
        roots = {TRAIN: path}
        _refuse_parts(path, folders)
    listed = {part: _classes(root) for part, root in roots.items()}
    classes = list(listed[TRAIN])
    _check_classes(path, roots, listed)
    unread: Counter[str] = Counter()
    files = [
        (file, label, PARTS.index(part))
        for part in roots
        for label, name in enumerate(classes)
        for folder in listed[part][name]
        for file in find_images([str(folder)], _refuse, unread)
    ]
    if unread:
        log.warning("%s: %s", path, describe_unread(unread))
    names, labels, parts = zip(*files, strict=True)
    return Listing(classes, names, np.array(labels), np.array(parts))


def _check_classes(path: Path, roots: Mapping[str, Path], listed: Mapping[str, Mapping[str, list[Path]]]) -> None:
    """Raise ValueError unless there are two or more classes, the same in all parts."""
    classes = listed[TRAIN]
    if len(classes) < 2:
        found = f"only the class {next(iter(classes))}" if classes else "no folders of classes"
        inside = [path / name for name in classes if roots[TRAIN] == path and len(_folders(path / name)) > 1]
        hint = f", or give {inside[0]}" if inside else ""
        raise ValueError(
            f"{roots[TRAIN]} has {found}: expected {roots[TRAIN] / 'CLASS' / '*.jpg'} for two or more{hint}"
        )
    if len(classes) > MAX_CLASSES:
        raise ValueError(f"{roots[TRAIN]} has {len(classes):,} classes: at most {MAX_CLASSES:,} can be told apart here")
    for part, root in roots.items():
        if loose := sum(entry.name.lower().endswith(SUFFIXES) for entry in os.scandir(root)):
            if not listed[part]:
                raise ValueError(f"{root}: its images are in no folder of a class: expected {root / 'CLASS' / '*.jpg'}")
            log.warning("%s: %s images are not read: they are in no folder of a class", root, f"{loose:,}")
        for name in sorted(listed[part].keys() ^ classes.keys()):
            here, there = (root, roots[TRAIN]) if name in listed[part] else (roots[TRAIN], root)
            raise ValueError(f"{path}: there is a class {name} in {here.name}, and none in {there.name}")


def _refuse_parts(path: Path, folders: Sequence[str]) -> None:
    """Raise ValueError if folders that should be classes are parts of the data by another name."""
    known = {*PARTS, *PART_NAMES[VAL], "training", "testing"}
    inside = {name: _folders(path / name) for name in folders}
    parts = [name for name in folders if inside[name] and name.lower() in known]
    if all(PART_WORD.search(name) for name in folders) and (any(inside.values()) or {*folders} <= known):
        parts = list(folders)
    if parts:
        named = ", ".join(str(path / name) for name in parts)
        raise ValueError(f"{named}: if these are parts of the data, and not classes, name them train and test")


def _classes(root: Path) -> dict[str, list[Path]]:
    """Return the folders of each class: names that differ only in how an accent is composed are the same class."""
    classes: dict[str, list[Path]] = {}
    if system := sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] in "@#$"):
        listed = ", ".join(system)
        log.warning("%s: %s: not read, since @, # and $ begin the names of a system's folders", root, listed)
    for name in _folders(root):
        if any(category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in name):
            raise ValueError(f"{root}: rename the folder {name!a}: its name has characters that no font shows")
        classes.setdefault(normalize("NFC", name), []).append(root / name)
    return dict(sorted(classes.items()))


def _folders(path: Path) -> list[str]:
    return sorted(e.name for e in os.scandir(path) if e.is_dir() and not is_left_behind(e.name, folder=True))


def _refuse(path: str, reason: str) -> None:
    raise ValueError(f"{path}: {reason}")
