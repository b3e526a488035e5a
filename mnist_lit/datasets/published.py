"""Published files of data sets: used where they are right, downloaded where they are missing or damaged."""

import logging
from collections.abc import Callable, Sequence
from hashlib import file_digest, md5
from io import SEEK_END, BufferedIOBase, BytesIO
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from filelock import FileLock

from mnist_lit.datasets.mirrors import download
from mnist_lit.system.files import write_atomically

__all__ = ["MAX_FILE_BYTES", "PublishedDataset", "PublishedFile", "fetch", "find", "has_md5"]

T = TypeVar("T")
MAX_FILE_BYTES = 1 << 28
"""Of a published file: larger ones do not fit in memory well, and are neither downloaded nor verified."""
log = logging.getLogger(__name__)


class PublishedFile(Protocol):
    """A file with a known checksum."""

    @property
    def names(self) -> Sequence[str]:
        """Its name as published, then other names under which it is looked for."""
        ...

    def is_valid(self, file: BufferedIOBase) -> bool:
        """Return whether `file` has the published content."""
        ...


class PublishedDataset:
    """A data set whose images are always the same, without names."""

    test_names: ClassVar[None] = None
    hashes: ClassVar[None] = None
    digests: ClassVar[None] = None


def fetch(folder: Path, files: Sequence[PublishedFile], mirrors: Sequence[str]) -> None:
    """Make sure that files are there and right; neither download nor write anything if they are.

    Several processes may do so at once: one downloads, the others wait for it.

    Args:
        folder: of the files.
        files: of one data set.
        mirrors: URLs (https, http, file) of folders with the files, tried in order.

    Raises:
        OSError: naming the file and every mirror tried, or the folder that cannot be written.
    """
    missing = [file for file in files if not find(folder, file, file.is_valid)]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for unfinished in folder.glob(".*.part"):  # of a process that was killed: this one holds the lock
            unfinished.unlink()
        for file in missing:
            if not find(folder, file, file.is_valid):
                _set_aside(folder, file)
                try:
                    content = _download(file, mirrors)
                except OSError as error:
                    names = ", ".join(file.names[0] for file in files)
                    raise OSError(f"{error}. To go on offline, put {names} into {folder}") from error
                write_atomically(folder / file.names[0], content)


def find(folder: Path, file: PublishedFile, check: Callable[[BufferedIOBase], T]) -> T | None:
    """Return the first true result of `check` for the files of these names, which it gets opened."""
    for path in _paths(folder, file):
        with path.open("rb") as stream:
            if found := check(stream):
                return found
    return None


def has_md5(file: BufferedIOBase, checksum: str | None) -> bool:
    """Return whether the content of `file` has this checksum: md5, as published, is against damage, not malice."""
    if file.seek(0, SEEK_END) > MAX_FILE_BYTES:
        return False
    file.seek(0)
    return file_digest(file, md5).hexdigest() == checksum


def _download(file: PublishedFile, mirrors: Sequence[str]) -> bytes:
    return download(file.names[0], mirrors, MAX_FILE_BYTES, lambda content: file.is_valid(BytesIO(content)))


def _paths(folder: Path, file: PublishedFile) -> list[Path]:
    return [path for path in (folder / name for name in file.names) if path.is_file()]


def _set_aside(folder: Path, file: PublishedFile) -> None:
    """Keep a damaged file under another name."""
    for path in _paths(folder, file):
        log.warning("%s is damaged: kept as %s.damaged, fetching it again", path, path.name)
        path.replace(path.with_name(f"{path.name}.damaged"))
