"""Ctrl-C and SIGTERM: end the program at once, or at a place of its choice.

Of several processes on a machine, only the first one handles signals. The others, whose `LOCAL_RANK` is not 0, ignore
them: they stop where it stops, and end when it has ended. One that obeyed a signal before it has joined the process
group would leave the first one waiting for it.
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
    "end_now",
    "follow_parent",
    "handle_signals",
    "hold_signals",
    "is_follower",
    "release_signals",
    "set_handler",
    "stop_now",
]

Handler = Callable[[int, FrameType | None], None] | signal.Handlers
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

    def note(self, number: int, _frame: FrameType | None) -> None:
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
    if is_follower():
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


def end_now(number: int, _frame: FrameType | None) -> None:
    """End the process as it is: where modules are imported, an exception could pass through code that expects none.

    In a module written in C++ it aborts the process, and a module that is half imported may raise anything afterwards.
    """
    _exit(number)


def stop_now(number: int, _frame: FrameType | None) -> None:
    """End the program wherever it is."""
    raise Stopped(number)


def _exit(number: int, how: str = "") -> None:
    """End the process without clearing up: files are put in place in one step, none is half-written."""
    os.write(2, f"error: {SIGNALS[signal.Signals(number)]}{how}\n".encode())
    os._exit(128 + number)


def is_follower() -> bool:
    """Return whether this process belongs to another one on this machine, which handles the signals."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def follow_parent() -> None:
    """End this process when the one that has started it has ended, even by SIGKILL."""
    parent = os.getppid()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of a connection that is lost then

    def watch() -> None:
        while os.getppid() == parent:
            sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def hold_signals() -> None:
    """Keep signals waiting, also in processes that are started from now on, until `release_signals`."""
    _mask("SIG_BLOCK")


def release_signals() -> None:
    """Let signals come, those that have been kept waiting at once."""
    _mask("SIG_UNBLOCK")


def _mask(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(getattr(signal, how), SIGNALS)
