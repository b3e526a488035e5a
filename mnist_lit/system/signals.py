"""Handlers of SIGINT (Ctrl-C) and SIGTERM, which stop the program at once or at its next safe point.

When Lightning launches several processes, only the parent process handles signals. Its child processes ignore them:
they stop when it stops, and exit when it has exited. If one exited on a signal before it has joined the process group,
the parent process would wait for it.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from time import sleep
from types import FrameType
from typing import Any, Literal

__all__ = [
    "WORKER",
    "StopRequest",
    "Stopped",
    "exit_at_once",
    "handle_signals",
    "is_child_process",
    "is_worker",
    "launching_children",
    "mask_signals",
    "raise_stopped",
    "set_handler",
    "watch_parent",
]

Handler = Callable[[int, FrameType | None], None] | signal.Handlers
PARENT = "MNIST_LIT_PARENT"
"""The environment variable with the parent's process id, set in child processes."""
WORKER = "MNIST_LIT_WORKER_OF"
"""The same in workers (see `processes`): they save and stop on a signal, as any other process."""
SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Stopped(BaseException):
    """The program was stopped by a signal. Like KeyboardInterrupt, it is no Exception: only `main` handles it.

    Args:
        number: of the signal.
        hint: how to continue, appended to the message.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(SIGNALS[signal.Signals(number)] + hint)
        self.exit_code = 128 + number


class StopRequest:
    """A handler that records the first signal for `check`; a second one exits at once."""

    number: int | None = None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.number is not None:
            _exit(number, " at once")
        self.number = number

    def check(self) -> None:
        """Raise `Stopped` if a signal was received."""
        if self.number is not None:
            raise Stopped(self.number)


def set_handler(handler: Handler) -> dict[signal.Signals, Any]:
    """Set the handler of both signals, in child processes SIG_IGN, and return the previous handlers."""
    if is_child_process():
        handler = signal.SIG_IGN
    return {number: signal.signal(number, handler) for number in SIGNALS}


@contextmanager
def handle_signals(handler: Handler) -> Iterator[None]:
    """Set the handler of both signals within a context."""
    previous = set_handler(handler)
    try:
        yield
    finally:
        for number, restored in previous.items():
            signal.signal(number, restored)


def exit_at_once(number: int, _frame: FrameType | None) -> None:
    """Exit without raising an exception, for use while modules are imported.

    An exception aborts the process inside a C++ module, and a partly imported module may raise anything afterwards.
    """
    _exit(number)


def raise_stopped(number: int, _frame: FrameType | None) -> None:
    """Raise `Stopped` wherever the program is."""
    raise Stopped(number)


def _exit(number: int, how: str = "") -> None:
    """Exit without cleanup, which is safe because files are written atomically."""
    with suppress(OSError):  # whoever reads the messages may have ended
        os.write(2, f"error: {SIGNALS[signal.Signals(number)]}{how}\n".encode())
    os._exit(128 + number)


@contextmanager
def launching_children() -> Iterator[None]:
    """Mark the processes launched within this context as child processes of this one.

    Signals are blocked meanwhile, and in a child process until it calls `watch_parent`.
    """
    os.environ[PARENT] = str(os.getpid())
    mask_signals("SIG_BLOCK")
    try:
        yield
    finally:
        mask_signals("SIG_UNBLOCK")
        del os.environ[PARENT]


def is_child_process() -> bool:
    """Return whether this process was launched within `launching_children`."""
    return PARENT in os.environ


def is_worker() -> bool:
    """Return whether this process was started by `run_workers`."""
    return WORKER in os.environ


def watch_parent() -> None:
    """Unblock signals, which `set_handler` ignores in a child process, and exit when the parent process has exited.

    (On Windows, a child process detects that only when a collective operation fails.)
    """
    mask_signals("SIG_UNBLOCK")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # hides warnings about the lost connection

    def watch() -> None:
        while str(os.getppid()) == os.environ[PARENT]:
            sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def mask_signals(how: Literal["SIG_BLOCK", "SIG_UNBLOCK"]) -> None:
    """Block or unblock both signals; processes that are started meanwhile inherit it."""
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(getattr(signal, how), SIGNALS)
