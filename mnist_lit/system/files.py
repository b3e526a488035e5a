"""Write files so that nobody ever sees half of one."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from time import sleep

__all__ = ["write_atomically"]

TRIES, PAUSE = 20, 0.1
"""To replace a file that another process has open on Windows: how often, and seconds between."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, flush it to the disk, then put it in place in one step.

    Raises:
        OSError: if it cannot be written; what stood at `path` before still stands there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            _flush(file.fileno())
        _replace(path, beside)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # name the file that the caller knows
    finally:
        beside.unlink(missing_ok=True)


def _flush(descriptor: int) -> None:
    """Write a file's content to the disk itself."""
    os.fsync(descriptor)
    if sys.platform == "darwin":  # where fsync leaves it in the drive's memory, which a power cut empties
        from fcntl import F_FULLFSYNC, fcntl

        with suppress(OSError):  # not every file system can do more
            fcntl(descriptor, F_FULLFSYNC)


def _replace(path: Path, beside: Path) -> None:
    """Put `beside` in the place of `path`, which Windows refuses for as long as another process reads `path`."""
    for _ in range(TRIES if sys.platform == "win32" else 0):
        with suppress(PermissionError):
            beside.replace(path)
            return
        sleep(PAUSE)
    beside.replace(path)
