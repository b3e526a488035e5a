"""Atomic file writes: a reader finds the old content or the new, never a part of it."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from time import sleep

__all__ = ["write_atomically"]

MAX_RETRIES, RETRY_DELAY = 20, 0.1
"""How often, and after how many seconds, to try again to replace a file that another process has open on Windows."""


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to a temporary file beside `path`, flush it to the disk, then rename it to `path`.

    Raises:
        OSError: if it cannot be written; an existing file at `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            _flush_to_disk(file.fileno())
        _replace(path, temporary)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # name the file that the caller knows
    finally:
        temporary.unlink(missing_ok=True)


def _flush_to_disk(descriptor: int) -> None:
    os.fsync(descriptor)
    if sys.platform == "darwin":  # where fsync leaves the data in the drive's cache, which a power failure clears
        from fcntl import F_FULLFSYNC, fcntl

        with suppress(OSError):  # not supported by every file system
            fcntl(descriptor, F_FULLFSYNC)


def _replace(path: Path, temporary: Path) -> None:
    """Rename `temporary` to `path`, which Windows refuses while another process has `path` open."""
    for _ in range(MAX_RETRIES if sys.platform == "win32" else 0):
        with suppress(PermissionError):
            temporary.replace(path)
            return
        sleep(RETRY_DELAY)
    temporary.replace(path)
