"""The first signal raises an exception, a second one ends the program at once."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import posix

from mnist_lit.system.signals import PARENT, Stopped, handle_signals, raise_stopped

PROGRAM = """
import signal
from mnist_lit.system.signals import raise_stopped, set_handler

set_handler(raise_stopped)
try:
    signal.raise_signal(signal.SIGTERM)
finally:
    print("closing", flush=True)
    signal.raise_signal(signal.SIGINT)
    print("not reached", flush=True)
"""


@pytest.mark.parametrize(("number", "code", "word"), [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_signal_raises_stopped_and_handlers_are_restored(number: int, code: int, word: str) -> None:
    previous = signal.getsignal(number)
    with pytest.raises(Stopped, match=f"^{word}$") as stopped, handle_signals(raise_stopped):
        signal.raise_signal(number)
    assert stopped.value.exit_code == code
    assert not isinstance(stopped.value, Exception), "a library that handles any Exception must not swallow it"
    assert signal.getsignal(number) == previous


def test_second_signal_exits_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=False)
    lines = [stream.decode().splitlines() for stream in (done.stdout, done.stderr)]
    assert (done.returncode, *lines) == (130, ["closing"], ["interrupted"])


@pytest.mark.parametrize("rank", ["0", "1"])
def test_only_the_first_process_of_a_launcher_handles_signals(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("MASTER_PORT", "12345")
    with handle_signals(raise_stopped):
        assert signal.getsignal(signal.SIGINT) == (raise_stopped if rank == "0" else signal.SIG_IGN)


@posix
def test_a_process_ends_whose_parent_was_killed_before_it_could_look() -> None:
    """It would otherwise follow whoever has adopted it, and wait for the first process of the training for ever."""
    code = "import time; from mnist_lit.system.signals import follow_parent; follow_parent(); time.sleep(60)"
    environment = os.environ | {PARENT: "1"}  # not the parent
    ended = subprocess.run([sys.executable, "-c", code], env=environment, timeout=30, check=False)
    assert ended.returncode == 1
