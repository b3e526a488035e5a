"""Start this program several times, to share the work of one command, and be one of those processes, a worker.

Workers have sessions of their own: a terminal sends Ctrl-C to the parent process only, which forwards it once. (On
Windows the console sends it to all of them.)
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from errno import EINVAL, EPIPE
from io import BufferedWriter, FileIO, TextIOWrapper
from queue import Empty, Queue
from signal import SIGTERM
from subprocess import DEVNULL, PIPE, Popen
from threading import Thread
from time import sleep
from typing import IO, Any, TextIO

from mnist_lit.system.errors import UsageError
from mnist_lit.system.program import START
from mnist_lit.system.signals import WORKER, Stopped, handle_signals, mask_signals

__all__ = ["become_worker", "run_workers", "share_cores"]

POSIX = os.name == "posix"
ERROR = "error: "
USAGE, STOPPED = 2, (130, 143)
"""Exit codes whose error line only the parent prints: all workers have the same."""


def share_cores(processes: int) -> int:
    """Return how many threads each of several processes has: OMP_NUM_THREADS, or its share of torch's default."""
    from torch import get_num_threads  # here: a worker must not import it before it handles signals

    return get_num_threads() if "OMP_NUM_THREADS" in os.environ else max(1, get_num_threads() // processes)


def run_workers(argv: Sequence[str], number: int, threads: int, **variables: str) -> str | None:
    """Run workers until all have ended: print what they print behind their numbers, and forward signals to them.

    Args:
        argv: the command and its flags.
        number: of workers.
        threads: of each.
        variables: of their environment.

    Returns:
        Which workers have failed, None if none has.

    Raises:
        UsageError: if a worker has ended with one: they all have the same flags.
        Stopped: if a signal has stopped them.
    """
    own = {WORKER: str(os.getpid()), "OMP_NUM_THREADS": str(threads), "PYTHONIOENCODING": "utf-8"}
    workers: list[Popen[str]] = []
    received: list[int] = []
    errors: dict[int, str] = {}
    with handle_signals(lambda signal, _: received.append(signal)):
        try:
            for _ in range(number):
                workers.append(_start(argv, os.environ | own | variables))  # noqa: PERF401  # ended if another fails
            _relay(workers, received, errors)
        except BaseException:  # such as a closed pipe
            for worker in workers:
                worker.terminate()
            raise
        finally:
            codes = [worker.wait() for worker in workers]
    if received and any(codes):
        raise Stopped(received[0])
    for index, error in errors.items():
        if codes[index] == USAGE:
            raise UsageError(error.removeprefix(ERROR).strip())
    failed = [f"{index + 1} (exit code {code})" for index, code in enumerate(codes) if code]
    return f"of {number} processes, these failed: {', '.join(failed)}" if failed else None


def _start(argv: Sequence[str], environment: dict[str, str]) -> Popen[str]:
    command = [*START, *argv, *(["--traceback"] if "--traceback" in sys.argv else [])]
    pipes: dict[str, Any] = {"stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE, "encoding": "utf-8", "errors": "replace"}
    mask_signals("SIG_BLOCK")  # the worker inherits this: a signal waits until it can be handled
    try:
        return Popen(command, env=environment, start_new_session=True, **pipes)  # noqa: S603
    finally:
        mask_signals("SIG_UNBLOCK")


def _relay(workers: Sequence[Popen[str]], received: Sequence[int], errors: dict[int, str]) -> None:
    """Print lines and forward signals until all workers have ended; `errors` gets the last error line of each."""
    lines: Queue[tuple[int, TextIO, str]] = Queue()  # only this thread prints, and raises the error if it cannot
    for index, worker in enumerate(workers):
        for source, target in ((worker.stdout, sys.stdout), (worker.stderr, sys.stderr)):
            Thread(target=_read, args=(index, source, target, lines), daemon=True).start()
    forwarded, reading = 0, 2 * len(workers)
    while reading:
        if POSIX and forwarded < len(received):
            for worker in workers:
                worker.send_signal(received[forwarded])
            forwarded += 1
        with suppress(Empty):
            index, target, line = lines.get(timeout=0.1)
            reading -= not line
            if target is sys.stderr and line.startswith(ERROR):
                errors[index], line = line, ""  # how it ends tells whether it is printed
            elif target is sys.stderr and not line and workers[index].wait() not in {USAGE, *(received and STOPPED)}:
                line = errors.get(index, "")
            if line:
                print(f"{index + 1}│ {line.rstrip()}", file=target)


def _read(index: int, source: IO[str], target: TextIO, lines: "Queue[tuple[int, TextIO, str]]") -> None:
    with source:
        for line in source:
            lines.put((index, target, line))
    lines.put((index, target, ""))


class _Output(FileIO):
    """A pipe that the parent reads. When it has ended, nothing is written: an error would come before the signal."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in {EPIPE, EINVAL}:  # EINVAL: on Windows
                raise
            return len(data)


def become_worker() -> None:
    """Handle signals from now on, and stop as after SIGTERM when the parent process has ended, even if it was killed.

    (On Windows, a worker does not learn that, and goes on.)
    """
    mask_signals("SIG_UNBLOCK")
    sys.stdout, sys.stderr = (
        TextIOWrapper(
            BufferedWriter(_Output(stream.fileno(), "w", closefd=False)), "utf-8", stream.errors, line_buffering=True
        )
        for stream in (sys.stdout, sys.stderr)
    )

    def watch() -> None:
        while str(os.getppid()) == os.environ[WORKER]:
            sleep(0.5)
        os.kill(os.getpid(), SIGTERM)

    if POSIX:
        Thread(target=watch, daemon=True).start()
