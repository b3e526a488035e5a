"""Signals end the program at once, or are kept until it asks."""

import signal
import subprocess
import sys

import pytest

from mnist_lit.system.signals import Stopped, StopRequest, handle_signals, raise_stopped


@pytest.mark.parametrize(("number", "code", "word"), [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_a_signal_stops_at_once_and_afterwards_things_are_as_before(number: int, code: int, word: str) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=word) as stopped, handle_signals(raise_stopped):
        signal.raise_signal(number)
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) == before


def test_a_request_is_obeyed_when_it_is_asked_for() -> None:
    request = StopRequest()
    request.check()
    with handle_signals(request.handle):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped, match="terminated"):
        request.check()


def test_a_second_signal_ends_the_process() -> None:
    code = (
        "import signal\n"
        "from mnist_lit.system.signals import StopRequest, handle_signals\n"
        "with handle_signals(StopRequest().handle):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print('not here', flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"still here\n", b"error: interrupted at once\n")
