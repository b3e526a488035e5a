"""The command line: help, output in a terminal and elsewhere, errors, signals and exit codes."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import SHORT, TRAIN, Command, link_data, posix

from mnist_lit import __version__, cli
from mnist_lit.commands import COMMANDS
from mnist_lit.system.program import PROGRAM


def run(code: str, *argv: str, **settings: Any) -> "subprocess.CompletedProcess[bytes]":
    """Run a program of this text in the folder of the project."""
    argv = (sys.executable, "-c", code, *argv)
    return subprocess.run(argv, capture_output=True, cwd=TRAIN.parent, check=False, **settings)


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["--traceback"], ["--traceback", "--help"]])
def test_help_fits_on_one_screen(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 24
    assert all(name in out for name in COMMANDS)
    assert out.count(f"{PROGRAM} fit") == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mnist-lit {__version__}\n"


HELP = "import sys; from mnist_lit.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"


@pytest.mark.parametrize("argv", [["--help"], ["fit", "-h", "--seed=1"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_printed_without_torch_and_where_not_all_characters_can_be(argv: list[str]) -> None:
    done = run(HELP, *argv, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"usage: " in done.stdout.lower()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_the_flags_that_people_change_and_all_others_if_asked(
    name: str, command: Command
) -> None:
    short = command.succeed(name, "--help")
    assert len(short.splitlines()) < 22
    full = command.succeed(name, "--help", "all")
    assert command(name, "--help=all") == (0, full, "")
    assert command(name, "--experiment=all", "-h") == (0, short, "")
    for flag in re.findall(r"^  (--[\w.]+)", short, re.MULTILINE):
        assert flag in full, "the short help names existing flags"
    assert name == "compare" or "--trainer.precision" in full


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["tset"], 2, "no command tset: did you mean test?"),
        (["sing"], 2, "no command sing: the commands are fit, validate, test, predict, export"),
        (["fit", "--data.batch_sze=3"], 2, "no flag --data.batch_sze: did you mean --data.batch_size?"),
        (["fit", "fast"], 2, "no flag fast: flags start with --"),
        (["fit", "--config=fsat"], 2, "--config: no file fsat: did you mean fast?"),
        (["fit", "--config=wheel/fast.yaml"], 2, "--config: no file wheel/fast.yaml: did you mean fast?"),
        (["fit", "--config=mine.yaml"], 2, "--config: no file mine.yaml, and no config of that name: baseline, best"),
        (["test", "--seeds=3"], 2, "no flag --seeds of this command: only fit has it"),
        (["predict", "--init_from", "my.ckpt"], 2, "no flag --init_from of this command: only fit has it"),
        (["fit", "--data.batch_size=0"], 2, "batch_size must be at least 1, got 0"),
        (["fit", "--data.batch_size=55001"], 2, "--data.batch_size: 55001 is more than the 55,000 images to train on"),
        (["fit", "--data.val_size=-1"], 2, "val_size must be at least 0 and less than 60,000, got -1"),
        (["fit", "--data.val_size=60000"], 2, "val_size must be at least 0 and less than 60,000, got 60000"),
        (["fit", "--trainer.accelerator=abacus"], 2, "Trainer: "),
        (["fit", "--trainer.max_time=5m"], 2, "--trainer.max_time: "),
        (["fit", "--experiment=1e3"], 2, "--experiment: 1e3 is a number in YAML: give another name"),
        (["fit", "--experiment=None"], 2, "--experiment: None does not match"),
        (["test"], 1, "no run with a best checkpoint in runs: train one with fit"),
        (["predict", "--ckpt_path=file"], 1, "file is not a complete checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_usage_error_is_one_line_and_creates_no_files(
    argv: list[str], code: int, message: str, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    ended, out, err = command(*argv)
    assert (ended, out) == (code, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "file"]


def test_an_error_is_one_readable_line_whatever_it_quotes(command: Command) -> None:
    err = command.refuse("test", f"--ckpt_path=\x1b[2J\0{'a ' * 10_000}", code=1)
    assert err.startswith("error: no checkpoint at ?[2J?a a a")
    assert len(err) < 2_020


@pytest.mark.parametrize(
    ("file", "flags", "named"),
    [("runs", [], f"{Path('runs/baseline')}: "), ("file", ["--data.data_dir=file/data"], "file")],
    ids=["runs", "data"],
)
def test_a_folder_that_cannot_be_created_is_named_and_leaves_no_run(
    command: Command, file: str, flags: list[str], named: str
) -> None:
    Path(file).touch()
    err = command.refuse("fit", *flags, code=1)
    assert err.startswith(f"error: {named}")
    assert not Path("runs").is_dir()


def test_traceback_shows_where_an_error_comes_from(command: Command) -> None:
    with pytest.raises(FileNotFoundError):
        command("test", "--traceback")


def test_without_a_terminal_there_is_one_line_per_epoch_and_no_warning(data_dir: Path, tmp_path: Path) -> None:
    link_data(data_dir, tmp_path)
    done = subprocess.run([sys.executable, TRAIN, "fit", *SHORT], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert [line[:10] for line in lines if line.startswith("epoch")] == ["epoch  1/2", "epoch  2/2"]
    assert len(lines) <= 17
    assert b"\r" not in done.stdout


IMPORTS = """
import os, sys, threading, time
from mnist_lit import cli

def stop(number):
    while "torch" not in sys.modules:
        time.sleep(0.01)
    os.kill(os.getpid(), number)

threading.Thread(target=stop, args=[int(sys.argv.pop())], daemon=True).start()
sys.exit(cli.main())
"""


@posix
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_during_the_import_of_torch_ends_the_program(number: int, code: int, word: str) -> None:
    ended = run(IMPORTS, "fit", f"{number:d}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, b"", f"{word}\n".encode())


SHUTDOWN = """
import atexit, sys, time
from types import ModuleType
from mnist_lit import cli

def shutdown():
    print("shutdown", flush=True)
    time.sleep(0.5)

def fit(flags):
    if flags:
        raise ValueError("refused")

atexit.register(shutdown)
sys.modules["mnist_lit.commands.fit"] = module = ModuleType("fit")
module.fit = fit
sys.exit(cli.main())
"""


@posix
@pytest.mark.parametrize(("flags", "expected"), [([], (0, b"")), (["--flag"], (1, b"error: refused\n"))])
def test_a_signal_during_the_shutdown_is_ignored(flags: list[str], expected: tuple[int, bytes]) -> None:
    argv = [sys.executable, "-c", SHUTDOWN, "fit", *flags]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=TRAIN.parent)
    assert process.stdout
    assert process.stdout.readline() == b"shutdown\n"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        sleep(0.05)
    _, err = process.communicate()
    assert (process.returncode, err) == expected


def test_a_signal_is_reported_whatever_exception_follows(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise RecursionError("in code that expects no exception")

    monkeypatch.setitem(sys.modules, "mnist_lit.commands.fit", SimpleNamespace(fit=fit))
    assert command("fit") == (130, "", "interrupted\n")


def test_main_with_arguments_restores_the_signal_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert (cli.main(["--help"]), cli.main(["tset"])) == (0, 2)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert capsys.readouterr().err.startswith("error: no command tset")


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    argv, environment = [sys.executable, "-S", str(TRAIN), "fit"], os.environ | {"PYTHONPATH": ""}
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    missing = "No module named 'torch': install what this program needs with pip install -e ."
    assert (ended.returncode, ended.stderr) == (1, f"error: {missing}\n")
