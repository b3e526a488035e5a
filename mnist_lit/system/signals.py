"""Ctrl-C and SIGTERM: end the program at once, or at a place of its choice.

Of several processes that Lightning starts, only the first one handles signals. The others, its followers, ignore them:
they stop where it stops, and end when it has ended. One that obeyed a signal before it has joined the process group
would leave the first one waiting for it.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from time import sleep
from types import FrameType
from typing import Any

__all__ = [
    "StopRequest",
    "Stopped",
    "exit_at_once",
    "handle_signals",
    "is_child_process",
    "launching_children",
    "raise_stopped",
    "set_handler",
    "watch_parent",
]

Handler = Callable[[int, FrameType | None], None] | signal.Handlers
PARENT = "MNIST_LIT_PARENT"
"""The environment variable in which a follower has the number of the process that started it."""
SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Stopped(BaseException):
    """Ctrl-C or SIGTERM ended the program. Like KeyboardInterrupt, it is no Exception: nothing handles it but `main`.

    Args:
        number: the signal's.
        hint: what to do now.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(SIGNALS[signal.Signals(number)] + hint)
        self.exit_code = 128 + number


class StopRequest:
    """The first signal is a request, which `check` obeys; a second one ends the process at once."""

    number: int | None = None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.number is not None:
            _exit(number, " at once")
        self.number = number

    def check(self) -> None:
        """Raise `Stopped` if a signal has come."""
        if self.number is not None:
            raise Stopped(self.number)


def set_handler(handler: Handler) -> dict[signal.Signals, Any]:
    """Let `handler` have Ctrl-C and SIGTERM from now on, and return what had each of them before."""
    if is_child_process():
        handler = signal.SIG_IGN
    return {number: signal.signal(number, handler) for number in SIGNALS}


@contextmanager
def handle_signals(handler: Handler) -> Iterator[None]:
    """Let `handler` have Ctrl-C and SIGTERM within this context."""
    before = set_handler(handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def exit_at_once(number: int, _frame: FrameType | None) -> None:
    """End the process as it is: where modules are imported, an exception could pass through code that expects none.

    In a module written in C++ it aborts the process, and a module that is half imported may raise anything afterwards.
    """
    _exit(number)


def raise_stopped(number: int, _frame: FrameType | None) -> None:
    """End the program wherever it is."""
    raise Stopped(number)


def _exit(number: int, how: str = "") -> None:
    """End the process without clearing up: files are put in place in one step, none is half-written."""
    os.write(2, f"error: {SIGNALS[signal.Signals(number)]}{how}\n".encode())
    os._exit(128 + number)


@contextmanager
def launching_children() -> Iterator[None]:
    """Let the processes that are started within this context be followers of this one.

    Signals wait meanwhile, and in a follower until it has called `watch_parent`.
    """
    os.environ[PARENT] = str(os.getpid())
    _mask("SIG_BLOCK")
    try:
        yield
    finally:
        _mask("SIG_UNBLOCK")
        del os.environ[PARENT]


def is_child_process() -> bool:
    """Return whether this process was started within `launching_children`."""
    return PARENT in os.environ


def watch_parent() -> None:
    """Let signals come, which `set_handler` ignores in a follower, and end when the first process has ended.

    (On Windows, a follower learns of that only when it waits for the first process in vain.)
    """
    _mask("SIG_UNBLOCK")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of a connection that is lost then

    def watch() -> None:
        while str(os.getppid()) == os.environ[PARENT]:
            sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _mask(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(getattr(signal, how), SIGNALS)
