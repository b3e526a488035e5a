"""Atomic file writes: a reader finds the old content or the new, never a part of it. Paths with `~`."""

import os
import re
import sys
from contextlib import suppress
from errno import EINVAL
from pathlib import Path
from secrets import token_hex
from time import sleep
from typing import Any

__all__ = ["expand_home", "write_atomically"]

MAX_RETRIES, RETRY_DELAY = 20, 0.1
"""How often, and after how many seconds, to try again to replace a file that another process has open on Windows."""


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to a temporary file beside `path`, flush it to the disk, then rename it to `path`.

    The temporary file is made exclusively, under a name that cannot be guessed: nothing is written through a link.

    Raises:
        OSError: if it cannot be written, or `path` is a folder or a device; an existing file at `path` is unchanged.
    """
    if path.exists() and not path.is_file():
        raise OSError(EINVAL, "Not a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{token_hex(8)}.part")  # its name is never too long
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            _flush_to_disk(file.fileno())
        _replace(path, temporary)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # name the file that the caller knows
    finally:
        temporary.unlink(missing_ok=True)


def expand_home(value: Any) -> Any:
    """Return a value of a config file, or an argument of a command, with the home folder for a leading `~`.

    Shells expand it only at the beginning of a word: not in `--output=~/digits.csv`.

    >>> expand_home({"data_dir": "~/data", "n": 1}) == {"data_dir": os.path.expanduser("~/data"), "n": 1}
    True
    """
    if isinstance(value, dict):
        return {name: expand_home(item) for name, item in value.items()}
    if isinstance(value, list):
        return [expand_home(item) for item in value]
    if isinstance(value, str) and (found := re.fullmatch(r"(--[\w.+]+=)?(~(?:[/\\].*)?)", value, re.DOTALL)):
        return (found[1] or "") + os.path.expanduser(found[2])  # noqa: PTH111  # a Path would normalise it
    return value


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
