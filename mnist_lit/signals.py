"""Ctrl-C and SIGTERM: end the program at once, or at a place of its choice."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["StopRequest", "Stopped", "handle_signals", "set_handler", "stop_now"]

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
            os.write(2, f"error: {SIGNALS[signal.Signals(number)]} at once\n".encode())
            os._exit(128 + number)  # without clearing up: files are put in place in one step, none is half-written
        self.number = number

    def check(self) -> None:
        """Raise `Stopped` if a signal has come."""
        if self.number is not None:
            raise Stopped(self.number)


def set_handler(handler: Handler) -> dict[signal.Signals, Any]:
    """Let `handler` have Ctrl-C and SIGTERM from now on, and return what had each of them before."""
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


def stop_now(number: int, _frame: FrameType | None) -> None:
    """End the program wherever it is."""
    raise Stopped(number)
