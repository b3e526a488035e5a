"""Published files of data sets: used where they are right, downloaded from the first mirror that serves them if not."""

import logging
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import file_digest, md5
from http.client import HTTPException
from io import SEEK_END, BufferedIOBase, BytesIO
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeVar
from urllib.error import HTTPError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock

from mnist_lit.system.errors import redact_credentials
from mnist_lit.system.files import write_atomically

__all__ = [
    "MAX_FILE_BYTES",
    "Kind",
    "PublishedDataset",
    "PublishedFile",
    "download",
    "fetch",
    "find",
    "has_md5",
]

T = TypeVar("T")
Kind = Literal["digits", "drawings", "photographs"]
"""What images show; digits and drawings are white on black."""
MAX_FILE_BYTES = 1 << 28
"""Size limit of a published file: larger ones do not fit in memory well, and are neither downloaded nor verified."""
TIMEOUT = 30  # seconds without a byte
CHUNK_SIZE = 1 << 16  # bytes
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

    Several processes may do so at once: one downloads, and the other ones wait.

    Args:
        folder: folder of the files.
        files: files of one data set.
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


def download(name: str, mirrors: Sequence[str], max_bytes: int, is_valid: Callable[[bytes], bool]) -> bytes:
    """Return the content of the file `name`, and log a warning with the reason for each mirror that fails before.

    Args:
        name: the file's name, the last part of its URL.
        mirrors: URLs (https, http, file) of folders; for basic authentication with `user:password@`, percent-encoded.
        max_bytes: where to stop reading.
        is_valid: whether content is that of the file.

    Raises:
        OSError: if all mirrors fail, with their reasons.
    """
    failures = []
    for mirror in mirrors:
        try:
            content = _get(_parse(f"{mirror.rstrip('/')}/{name}"), name, max_bytes)
            if is_valid(content):
                return content
            reason = "not the published file"
        except (OSError, HTTPException, ValueError) as error:
            reason = str(error if isinstance(error, HTTPError) else getattr(error, "reason", error))
        failures.append(f"{redact_credentials(mirror)} ({redact_credentials(reason)})")
        log.warning("%s: not served by %s", name, failures[-1])
    raise OSError(f"no mirror serves {name}; tried {'; '.join(failures)}")


def _parse(url: str) -> SplitResult:
    """Return the parts of a URL.

    Raises:
        ValueError: if its scheme is not supported, or it is ambiguous where the password ends and the host begins.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in {"http", "https", "file"}:
        raise ValueError("not an https, http or file URL")
    user, _, _ = rest.rpartition("@")
    if scheme.lower() != "file" and ":" in user and re.search("[/?#]", user):
        raise ValueError("percent-encode a password's / as %2F, ? as %3F and # as %23, or a path's @ as %40")
    return urlsplit(url)


def _get(url: SplitResult, name: str, max_bytes: int) -> bytes:
    from tqdm import tqdm

    user, _, host = url.netloc.rpartition("@")
    request = Request(url._replace(netloc=host).geturl())  # noqa: S310  # the scheme was checked
    if user:  # unredirected: not sent to the server of a redirect
        request.add_unredirected_header("Authorization", f"Basic {b64encode(unquote(user).encode()).decode()}")
    with urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310  # as above
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        content = bytearray()
        hidden = True if url.scheme == "file" else None  # None: shown on a terminal
        with tqdm(desc=name, total=total, unit="B", unit_scale=True, leave=False, disable=hidden) as bar:
            while len(content) <= max_bytes and (chunk := response.read(CHUNK_SIZE)):
                content += chunk
                bar.update(len(chunk))
    if total is not None and len(content) < min(total, max_bytes):
        raise OSError(f"truncated: {len(content):,} of {total:,} bytes")
    return bytes(content)
