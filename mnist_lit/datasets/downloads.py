"""Published files of data sets: used where they are right, downloaded from the first mirror that serves them if not."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from filelock import FileLock

from mnist_lit.datasets.dataset import ImageDataset
from mnist_lit.system.files import write_atomically

__all__ = ["PublishedDataset", "PublishedFile", "download"]

MAX_FILE_BYTES = 1 << 28
"""Size limit of a published file: larger ones do not fit in memory well, and are neither downloaded nor read."""
TIMEOUT = 30  # seconds without a byte
CHUNK_SIZE = 1 << 16  # bytes
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedFile:
    """A file with a known checksum.

    Args:
        name: name of the file, as published.
        md5: checksum of its content. It protects from damage, not from malice.
    """

    name: str
    md5: str

    def read(self, path: Path) -> bytes | None:
        """Return the content of a file, or None if there is no such file, or it is not the published one."""
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            return None
        content = path.read_bytes()
        return content if self.is_valid(content) else None

    def is_valid(self, content: bytes) -> bool:
        """Return whether this is the published content."""
        return md5(content, usedforsecurity=False).hexdigest() == self.md5


@dataclass(frozen=True, kw_only=True)
class PublishedDataset(ImageDataset):
    """A data set whose files are published, and always the same.

    Args:
        files: names and md5 checksums of the published files.
        mirrors: URLs (https, http, file) of folders with the files, tried in order.
    """

    files: Sequence[tuple[str, str]]
    mirrors: Sequence[str] = ()

    @property
    def published_files(self) -> list[PublishedFile]:
        """The published files."""
        return [PublishedFile(*file) for file in self.files]

    def folder(self, data_dir: str | Path) -> Path:
        """Return the folder of the files, in that of all data sets."""
        return Path(data_dir, self.name)

    def content(self, file: PublishedFile, data_dir: str | Path) -> bytes:
        """Return the content of one of the files, which are in the folder of all data sets.

        Raises:
            OSError: if it is missing or damaged.
        """
        if (content := file.read(path := self.folder(data_dir) / file.name)) is None:
            raise OSError(f"{path} is missing or damaged")
        return content

    def fetch(self, data_dir: str | Path, mirrors: Sequence[str] | None = None) -> None:
        """Make sure that the files are there and right; neither download nor write anything if they are.

        Several processes may do so at once: one downloads, and the other ones wait.
        """
        folder, files = self.folder(data_dir), self.published_files
        missing = [file for file in files if file.read(folder / file.name) is None]
        if not missing:
            return
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            for unfinished in folder.glob(".*.part"):  # of a process that was killed: this one holds the lock
                unfinished.unlink()
            for file in missing:
                path = folder / file.name
                if file.read(path) is not None:
                    continue
                if path.is_file():
                    log.warning("%s is damaged: kept as %s.damaged, fetching it again", path, path.name)
                    path.replace(f"{path}.damaged")
                try:
                    content = download(file, mirrors or self.mirrors)
                except OSError as error:
                    names = ", ".join(file.name for file in files)
                    raise OSError(f"{error}. To go on offline, put {names} into {folder}") from error
                write_atomically(path, content)


def download(file: PublishedFile, mirrors: Sequence[str]) -> bytes:
    """Return a published file, and log a warning with the reason for each mirror that fails before.

    Mirrors are URLs (https, http, file) of folders.

    Raises:
        OSError: if all mirrors fail, with their reasons.
    """
    failures = []
    for mirror in mirrors:
        try:
            content = _get(f"{mirror.rstrip('/')}/{file.name}", file.name)
            if file.is_valid(content):
                return content
            reason = "not the published file"
        except (OSError, HTTPException, ValueError) as error:
            reason = str(error if isinstance(error, HTTPError) else getattr(error, "reason", error))
        failures.append(f"{mirror} ({reason})")
        log.warning("%s: not served by %s", file.name, failures[-1])
    raise OSError(f"no mirror serves {file.name}; tried {'; '.join(failures)}")


def _get(url: str, name: str) -> bytes:
    from tqdm import tqdm

    if not url.lower().startswith(("https://", "http://", "file://")):
        raise ValueError("not an https, http or file URL")
    with urlopen(url, timeout=TIMEOUT) as response:  # noqa: S310  # the scheme was checked
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        content = bytearray()
        hidden = True if url.lower().startswith("file") else None  # None: shown on a terminal
        with tqdm(desc=name, total=total, unit="B", unit_scale=True, leave=False, disable=hidden) as bar:
            while len(content) <= MAX_FILE_BYTES and (chunk := response.read(CHUNK_SIZE)):
                content += chunk
                bar.update(len(chunk))
    if total is not None and len(content) < min(total, MAX_FILE_BYTES):
        raise OSError(f"truncated: {len(content):,} of {total:,} bytes")
    return bytes(content)
