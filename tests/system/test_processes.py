"""Workers share a command: their output, failures and threads, signals, and the end of their parent."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
import torch
from conftest import TRAIN, posix

from mnist_lit.system import processes
from mnist_lit.system.errors import UsageError
from mnist_lit.system.processes import run_workers, share_cores

WORKER = """
import os, signal, sys, time
from pathlib import Path
from mnist_lit.system.processes import become_worker

received = []
print("starting", flush=True)
time.sleep(0.2)  # as an import: a signal waits
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: received.append(number))
become_worker()
while not received:
    print("working", flush=True)
    time.sleep(0.01)
time.sleep(0.5)  # others may follow
Path(f"{os.getpid()}.part").write_text(repr(received))
os.rename(f"{os.getpid()}.part", f"{os.getpid()}.signals")
sys.exit(128 + received[0])
"""
"""Works until a signal arrives, and records all that have arrived."""
PARENT = """
import sys
from mnist_lit.system import processes, signals

processes.START = (sys.executable, "-c", sys.argv[1])
try:
    processes.run_workers([], 2, 1)
except signals.Stopped as stopped:
    sys.exit(stopped.exit_code)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A parent process whose two workers are starting, in a process group of its own, as from a terminal."""
    argv = [sys.executable, "-c", PARENT, WORKER]
    environment = os.environ | {"PYTHONPATH": str(TRAIN.parent)}
    with subprocess.Popen(
        argv,
        cwd=tmp_path,
        env=environment,
        encoding="utf-8",
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as started:
        assert started.stdout
        seen: set[str] = set()
        while not seen >= {"1│ starting\n", "2│ starting\n"}:
            seen.add(line := started.stdout.readline())
            assert line
        yield started


def received(folder: Path) -> list[str]:
    """Return the signals that each worker has received, once both have ended."""
    end = monotonic() + 20
    while len(files := list(folder.glob("*.signals"))) < 2:
        assert monotonic() < end, "a worker goes on"
        sleep(0.05)
    return [path.read_text(encoding="utf-8") for path in files]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    return monkeypatch


def test_lines_are_printed_behind_the_number_of_their_worker(
    program: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import os, sys; print(sys.argv[1:], sys.stdout.isatty(), os.environ['OMP_NUM_THREADS'], os.environ['WHAT']); "
        "print('', '→', sep='\\n'); print('a warning', file=sys.stderr)"
    )
    program.setattr(processes, "START", (sys.executable, "-c", code))
    assert run_workers(["fit", "--seeds=2"], 2, 3, WHAT="this") is None
    out, err = capfd.readouterr()
    for number in ("1", "2"):
        lines = [line[3:] for line in out.splitlines() if line.startswith(f"{number}│ ")]
        assert lines == ["['fit', '--seeds=2'] False 3 this", "", "→"]
    assert sorted(err.splitlines()) == ["1│ a warning", "2│ a warning"]


def test_a_failure_does_not_end_the_other_workers(
    program: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import os, sys, time; os.mkdir('first'); sys.exit('error: no space')"
    code = f"try:\n {code}\nexcept FileExistsError:\n time.sleep(0.5); print('done')"
    program.setattr(processes, "START", (sys.executable, "-c", code))
    failure = run_workers([], 2, 1)
    out, err = capfd.readouterr()
    failed, done = ("1", "2") if out.startswith("2") else ("2", "1")
    assert failure == f"of 2 processes, these failed: {failed} (exit code 1)"
    assert (out, err) == (f"{done}│ done\n", f"{failed}│ error: no space\n")


def test_a_usage_error_of_all_is_one(program: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('error: no flag --sed', file=sys.stderr); sys.exit(2)"
    program.setattr(processes, "START", (sys.executable, "-c", code))
    with pytest.raises(UsageError, match=r"^no flag --sed$"):
        run_workers([], 3, 1)
    assert capfd.readouterr() == ("", "")


def test_cores_are_shared_unless_a_number_of_threads_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [share_cores(number) for number in (1, 2, 3, 8, 64)] == [8, 4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert share_cores(2) == 8


@posix
@pytest.mark.parametrize("send", ["kill", "killpg"])  # Windows has no such function
@pytest.mark.parametrize("seconds", [0, 0.5])
def test_a_signal_arrives_once_also_from_a_terminal_and_while_workers_start(
    parent: "subprocess.Popen[str]", seconds: float, send: str, tmp_path: Path
) -> None:
    sleep(seconds)
    getattr(os, send)(parent.pid, signal.SIGINT)
    _, err = parent.communicate()
    assert (parent.returncode, err) == (130, "")
    assert received(tmp_path) == ["[2]", "[2]"]


@posix
def test_a_second_signal_arrives_as_a_second_one(parent: "subprocess.Popen[str]", tmp_path: Path) -> None:
    sleep(0.5)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.killpg(parent.pid, number)
        sleep(0.2)
    _, err = parent.communicate()
    assert (parent.returncode, err) == (143, "")
    assert received(tmp_path) == ["[15, 2]", "[15, 2]"]


@posix
def test_workers_stop_when_their_parent_is_killed(parent: "subprocess.Popen[str]", tmp_path: Path) -> None:
    sleep(0.5)
    parent.kill()
    parent.communicate()
    assert received(tmp_path) == ["[15]", "[15]"], "what they print meanwhile is no error"


@posix
def test_workers_stop_when_nobody_reads_the_output(parent: "subprocess.Popen[str]", tmp_path: Path) -> None:
    assert parent.stdout
    parent.stdout.close()
    assert received(tmp_path) == ["[15]", "[15]"]
    assert parent.wait() == 1
    assert parent.stderr
    assert re.search("^BrokenPipeError", parent.stderr.read(), re.MULTILINE)
