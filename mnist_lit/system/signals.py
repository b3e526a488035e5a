"""Handlers of SIGINT (Ctrl-C) and SIGTERM: the first signal raises `Stopped`, a second one ends the process at once.

Where Lightning launches several processes, only the first one handles signals. The other processes ignore them, and
exit when the process that started them has exited.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from time import sleep
from types import FrameType
from typing import Any

from mnist_lit.system.program import is_child_process

__all__ = [
    "PARENT",
    "Stopped",
    "block_signals",
    "exit_at_once",
    "follow_parent",
    "handle_signals",
    "raise_stopped",
    "set_handler",
]

Handler = Callable[[int, FrameType | None], None] | signal.Handlers
PARENT = "MNIST_LIT_PARENT"
"""The environment variable with the id of the process that launches others, which may have exited when these start."""
SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Stopped(BaseException):
    """The program was stopped by a signal. Like KeyboardInterrupt, it is not an Exception: only `main` handles it.

    Args:
        number: number of the signal.
        command: the command that resumes what was stopped, on a line of its own after the message.
    """

    def __init__(self, number: int, command: str | None = None) -> None:
        super().__init__(SIGNALS[signal.Signals(number)] + (f"; to resume:\n{command}" if command else ""))
        self.number, self.exit_code = number, 128 + number


def set_handler(handler: Handler) -> dict[signal.Signals, Any]:
    """Set the handler of both signals, in child processes SIG_IGN, and return the previous handlers."""
    if is_child_process():
        handler = signal.SIG_IGN
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return previous


def block_signals() -> None:
    """Hold both signals back until the next `set_handler`, in processes that are launched meanwhile too.

    A process that ended while it starts would leave the others waiting. The environment tells them which one to follow.
    """
    os.environ[PARENT] = str(os.getpid())
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextmanager
def handle_signals(handler: Handler) -> Iterator[None]:
    """Set the handler of both signals within a context."""
    previous = set_handler(handler)
    try:
        yield
    finally:
        for number, restored in previous.items():
            signal.signal(number, restored)


def raise_stopped(number: int, _frame: FrameType | None) -> None:
    """Raise `Stopped` wherever the program is. A second signal does not wait until that has closed all files."""
    set_handler(exit_at_once)
    raise Stopped(number)


def exit_at_once(number: int, _frame: FrameType | None) -> None:
    """Exit without cleanup, which is safe because files are written atomically.

    While modules are imported, an exception would abort the process inside a C++ module.
    """
    with suppress(OSError):  # whoever reads the messages may have ended
        os.write(2, f"{SIGNALS[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)


def follow_parent() -> None:
    """Exit when the parent process has exited.

    On Windows, a child process detects that only when a collective operation fails.
    """
    launched = "TORCHELASTIC_RUN_ID" not in os.environ  # by Lightning, not by torchrun
    parent = int((launched and os.environ.get(PARENT)) or os.getppid())
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # hides warnings about the lost connection

    def watch() -> None:
        while os.getppid() == parent:
            sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
