"""Ctrl-C and SIGTERM as an exception with its exit code."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stopped", "handle_signals", "stop_now"]


class Stopped(BaseException):
    """Ctrl-C or SIGTERM ended the program. Like KeyboardInterrupt, it is no Exception: nothing handles it but `main`.

    Args:
        number: the signal's.
        hint: what can be done now.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(("interrupted" if number == signal.SIGINT else "terminated") + hint)
        self.exit_code = 128 + number


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handler` have Ctrl-C and SIGTERM within this context."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def stop_now(number: int, _frame: FrameType | None) -> None:
    """End the program wherever it is."""
    raise Stopped(number)
