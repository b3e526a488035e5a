"""What is printed: lines without control characters, to a terminal, a file or a pipe that may be closed."""

import logging
import os
import sys
import threading
from errno import EBADF, EDQUOT, EFBIG, EINVAL, EIO, ENOSPC, EPIPE
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any

from mnist_lit.system.errors import printable

__all__ = ["outlive_readers", "say", "set_up_logs"]

FULL = {ENOSPC, EDQUOT, EFBIG}
GONE = {EPIPE, EBADF, EIO, *([EINVAL] if sys.platform == "win32" else [])}
"""Errors of a full disk, and of a reader that has ended (on Windows, EINVAL)."""


def say(*lines: str) -> None:
    r"""Print lines, each without control characters: names of files and classes come from outside.

    >>> say("photo\x1b[2J.png: 7", "done")
    photo?[2J.png: 7
    done
    """
    for line in lines:
        print(printable(line))


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_up_logs() -> None:
    """Format warnings as `say` formats lines, and print no traceback of a thread when the disk is full.

    TensorBoard's writer raises that error again in the main thread, which reports it.
    """
    hook = threading.__excepthook__
    threading.excepthook = lambda error: None if getattr(error.exc_value, "errno", 0) in FULL else hook(error)
    if logging.lastResort:
        logging.lastResort.setFormatter(_PrintableFormatter())


class _Output(FileIO):
    """A file descriptor whose reader may have ended: what is written then is lost, and nothing fails."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)  # None if it would block, which BufferedWriter reports
        except OSError as error:
            if error.errno not in GONE:
                raise
            return len(content)


def outlive_readers() -> None:
    """Keep working when nobody reads the output any more, as in `fit | head`; terminals stay as they are."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed from the start
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  # until the program ends
        elif isinstance(stream, TextIOWrapper) and not stream.isatty():
            output = BufferedWriter(_Output(os.dup(stream.fileno()), "wb"))
            setattr(sys, name, TextIOWrapper(output, stream.encoding, "replace", line_buffering=True))
