"""Signal handlers stop the program at once or at its next check."""

import signal
import subprocess
import sys

import pytest

from mnist_lit.system.signals import Stopped, StopRequest, handle_signals, raise_stopped


@pytest.mark.parametrize(("number", "code", "word"), [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_signal_raises_stopped_and_handlers_are_restored(number: int, code: int, word: str) -> None:
    previous = signal.getsignal(number)
    with pytest.raises(Stopped, match=word) as stopped, handle_signals(raise_stopped):
        signal.raise_signal(number)
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) == previous


def test_stop_request_raises_when_checked() -> None:
    request = StopRequest()
    request.check()
    with handle_signals(request.handle):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped, match="terminated"):
        request.check()


def test_second_signal_exits_at_once() -> None:
    code = (
        "import signal\n"
        "from mnist_lit.system.signals import StopRequest, handle_signals\n"
        "with handle_signals(StopRequest().handle):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('running', flush=True)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print('not reached', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"running\n", b"error: interrupted at once\n")
