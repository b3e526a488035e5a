"""Training in several processes (DDP) makes one run, as one process does."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import torch
from conftest import RUN, SHORT, TRAIN, Command, posix
from helpers.outcomes import differences, outcome
from test_exact_resume import FLAGS, LAST, VARIANTS

from mnist_lit.runs.checkpoints import Checkpoint

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
DDP = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"]


def fit(*flags: str, code: int = 0) -> str:
    """Train in another process, which starts its workers; return its output."""
    ended = subprocess.run([sys.executable, TRAIN, "fit", *flags], capture_output=True, check=False, timeout=120)
    assert (ended.returncode, ended.stderr.count(b"\n")) == (code, 1 if code else 0), ended.stderr.decode()
    return (ended.stdout + ended.stderr).decode()


def start(*flags: str, wait: bool = True) -> "subprocess.Popen[bytes]":
    """Start a training in a new process group and, if `wait`, wait until it has saved a checkpoint."""
    process = subprocess.Popen(
        [sys.executable, TRAIN, "fit", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while wait and process.poll() is None and not LAST.exists():
        sleep(0.01)
    return process


def undisturbed(*flags: str) -> dict[str, Any]:
    """Return the outcome of a training, which is removed."""
    fit(*flags)
    expected = outcome()
    shutil.rmtree("runs")
    return expected


def resume(process: "subprocess.Popen[bytes]", end: str, expected: dict[str, Any], program: Path = TRAIN) -> str:
    """Expect that all processes end as a signal says, and that the run resumes to an outcome; return its output."""
    _, err = process.communicate(timeout=60)  # when all have ended
    code, word = {"SIGTERM": (143, "terminated"), "SIGINT": (130, "interrupted"), "SIGKILL": (-9, "")}[end]
    assert process.returncode == code
    if word:
        assert err.decode() == f"{word}; to resume:\npython {program} fit --ckpt_path last\n"
    out = fit("--ckpt_path=last")
    assert differences(outcome(), expected) == []
    return out


def test_only_the_first_of_several_processes_prints(trained: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is finished" in trained("fit", "--ckpt_path=last", *DDP)[1]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which the process replaces
    assert trained("fit", "--ckpt_path=last", *DDP) == (0, "", "")


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_a_rank_of_a_cluster_does_not_change_a_run_of_one_process(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    out = command.succeed("fit", *SHORT)
    assert "test accuracy" in out
    assert RUN.results()["test"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fit", "--data.batch_size=101"], "--data.batch_size: 101 cannot be divided among 2 processes"),
        (["test"], "only fit runs in several processes: leave --trainer.devices and --trainer.num_nodes at 1"),
    ],
)
def test_what_cannot_run_in_two_processes_is_a_usage_error(trained: Command, argv: list[str], message: str) -> None:
    assert trained.refuse(*argv, *DDP) == f"error: {message}\n"
    assert list(Path("runs/baseline").iterdir()) == [RUN.folder]


def test_a_process_of_rank_1_removes_no_run_when_it_fails(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    (other := Path("runs/other/version_0/config.yaml")).parent.mkdir(parents=True)
    other.touch()
    monkeypatch.setenv("RANK", "1")
    assert command("fit", "--trainer.accelerator=abacus")[0] == 2
    assert other.is_file()


@posix
@pytest.mark.slow
def test_two_processes_make_one_run_with_the_weights_of_one_process_up_to_rounding(command: Command) -> None:
    flags = [flag for flag in FLAGS if "limit_test" not in flag]
    assert command("fit", *flags)[0] == 0
    expected, scores = Checkpoint.read(LAST).content["state_dict"], RUN.results()
    shutil.rmtree("runs")
    out = fit(*flags, *DDP)
    assert out.count(f"run      {RUN.folder}, seed 777, cpu\n") == out.count("test accuracy") == 1
    assert [path.name for path in RUN.folder.parent.iterdir()] == ["version_0"]
    assert sorted(path.name.split(".")[0] for path in RUN.folder.iterdir()) == [
        *("checkpoints", "config", "confusion", "curves", "events", "events", "events", "mistakes", "results"),
    ]
    found = Checkpoint.read(LAST).content["state_dict"]
    for name in [name for name in expected if name.startswith("network.")]:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-4)  # as docs/scaling.md says
    results = RUN.results()
    assert results["test"]["total"] == 10_000
    assert abs(results["test"]["correct"] - scores["test"]["correct"]) < 10
    assert results["fit"]["images_per_second"] > 0
    assert outcome()["pictures"]["val/mistakes"] == [19, 39, 59], "each is drawn once"


@posix
@pytest.mark.slow
@pytest.mark.usefixtures("command")
def test_three_processes_test_each_image_once() -> None:
    fit(*FLAGS, *DDP, "--trainer.devices=3", "--data.batch_size=99", "--trainer.limit_test_batches=1.0")
    assert RUN.results()["test"]["total"] == 10_000


@posix
@pytest.mark.slow
@pytest.mark.usefixtures("command")
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("SIGTERM", []),
        ("SIGINT", []),
        ("SIGKILL", []),
        pytest.param("SIGTERM", VARIANTS["averaged weights"], id="averaged weights"),
    ],
)
def test_a_run_of_two_processes_resumes_bit_for_bit(name: str, more: list[str]) -> None:
    """SIGTERM is sent to the first process, as `kill` does; the others to both, as a terminal or a power cut does."""
    flags = [*FLAGS, *DDP, "--trainer.limit_train_batches=100", *more]
    expected = undisturbed(*flags)
    process = start(*flags)
    number = signal.Signals[name]  # by name: Windows does not have all of them
    (os.kill if name == "SIGTERM" else os.killpg)(process.pid, number)
    assert "resuming" in resume(process, name, expected)


def is_second(pid: str) -> bool:
    """Return whether Lightning has started a process."""
    with suppress(OSError):  # it has ended
        return b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def second_process(process: "subprocess.Popen[bytes]") -> str:
    """Wait until a training starts its second process, and return its id."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (found := list(filter(is_second, children.read_text(encoding="utf-8").split()))):
        assert process.poll() is None, "the training has ended"
        sleep(0.001)
    return found[0]


@linux
@pytest.mark.slow
@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("delay", [0, 0.03, 1])
def test_ctrl_c_during_the_start_of_the_second_process_ends_both_and_the_run_resumes(delay: float) -> None:
    expected = undisturbed(*FLAGS, *DDP)
    process = start(*FLAGS, *DDP, wait=False)
    second_process(process)
    sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    resume(process, "SIGINT", expected)


@linux
@pytest.mark.slow
@pytest.mark.usefixtures("command")
def test_the_second_process_ends_when_the_first_is_killed() -> None:
    process = start(*FLAGS, *DDP, wait=False)
    second = second_process(process)
    process.kill()
    _, err = process.communicate(timeout=60)  # both have stderr open: this ends when both have ended
    assert err == b""
    assert not is_second(second)


TESTING = """
import sys, time
from mnist_lit import DigitClassifier, cli

def on_test_start(classifier):
    classifier.print("testing", flush=True)
    time.sleep(2)

if __name__ == "__main__":
    DigitClassifier.on_test_start = on_test_start
    sys.exit(cli.main())
"""


@posix
@pytest.mark.slow
@pytest.mark.usefixtures("command")
def test_sigterm_during_the_test_ends_both_processes_and_the_run_resumes() -> None:
    expected = undisturbed(*FLAGS, *DDP)
    (program := Path("program.py")).write_text(TESTING, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, program, "fit", *FLAGS, *DDP],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(TRAIN.parent)},
    )
    assert process.stdout
    while b"testing" not in process.stdout.readline():
        assert process.poll() is None
    process.terminate()
    resume(process, "SIGTERM", expected, program)


@linux
@pytest.mark.slow
@pytest.mark.usefixtures("command")
def test_the_run_ends_when_the_second_process_is_killed() -> None:
    process = start(*FLAGS, *DDP, "--trainer.limit_train_batches=1.0", "--trainer.max_epochs=100")
    since = monotonic()
    os.kill(int(second_process(process)), signal.SIGKILL)
    assert process.wait(timeout=30) != 0
    assert monotonic() - since < 30
    assert Checkpoint.read(LAST).content["global_step"] > 0
    assert process.stderr is not None
    process.stderr.close()
