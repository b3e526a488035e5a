"""What several test modules need."""

import builtins
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from mnist_lit import DigitClassifier, cli
from mnist_lit.datasets.catalog import DATASETS
from mnist_lit.runs.folders import Run

FLAGS = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=60",
    "--model.channels=[4,8]",
]
"""Of a training that takes a second or two, on real digits; evaluation is whole."""

SHORT = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=20",
    "--trainer.limit_val_batches=5",
    "--trainer.limit_test_batches=5",
    "--model.channels=[4,8]",
]
"""Of one that takes less than a second."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a system like Linux or macOS")
TRAIN = Path(__file__).parent.parent / "train.py"
collect_ignore = ["benchmarks"]  # programs, which measure when they are imported
RUN = Run(Path("runs/baseline/version_0"))
"""What `trained` leaves."""

MNIST = DATASETS["MNIST"]
if sys.platform == "darwin":  # what is promised to the bit is promised for CPUs; also for commands without those flags
    torch.backends.mps.is_available = lambda: False
Command = Callable[..., tuple[int, str, str]]


def stock_trainer(folder: Path, **arguments: Any) -> Trainer:
    """Return Lightning's own Trainer, without a word or a log."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=folder, accelerator="cpu", **quiet | arguments)


def callback(name: str, **arguments: Any) -> str:
    """Return the flag that adds a callback of Lightning's."""
    given = {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": arguments}
    return f"--trainer.callbacks={json.dumps([given])}"


def uninstall(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a package be as if it were not installed."""
    given = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(name=package)
        return given(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real files, once for all tests."""
    folder = tmp_path_factory.mktemp("data")
    MNIST.fetch(folder)
    return folder


def link_data(data_dir: Path, folder: Path) -> None:
    """Put the real files into the `data` of a folder, without copying them; Windows has hard links for everybody."""
    shutil.copytree(data_dir, folder / "data", copy_function=os.link)


@pytest.fixture
def open_files_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to remove a file that this process has open, as Windows does."""
    remove = os.unlink

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        wanted = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        for descriptor in range(256):
            with suppress(OSError):  # no such descriptor
                if os.path.samestat(os.fstat(descriptor), wanted):
                    break
        else:
            return remove(path, dir_fd=dir_fd)
        raise PermissionError(errno.EACCES, "used by another process", str(path))

    monkeypatch.setattr(os, "unlink", unlink)


@pytest.fixture
def command(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Run a command line in an empty folder; return its exit code, output and error output."""
    monkeypatch.chdir(tmp_path)
    link_data(data_dir, tmp_path)

    def run(*argv: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main([str(argument) for argument in argv])
        return code, *capfd.readouterr()

    return run


def train(folder: Path, data_dir: Path, *flags: str) -> None:
    """Train in a process of its own, in an empty folder."""
    link_data(data_dir, folder)
    subprocess.run([sys.executable, TRAIN, "fit", *flags], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def fast(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> DigitClassifier:
    """The `fast` recipe, trained in seconds to 99 %."""
    train(folder := tmp_path_factory.mktemp("fast"), data_dir, f"--config={TRAIN.parent / 'configs/fast.yaml'}")
    return DigitClassifier.load_from_checkpoint(folder / "runs/fast/version_0/checkpoints/best.ckpt").eval()


@pytest.fixture(scope="session")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `runs` of a short training, once for all tests."""
    train(folder := tmp_path_factory.mktemp("finished"), data_dir, *FLAGS)
    return folder / "runs"


@pytest.fixture
def trained(command: Command, finished: Path) -> Command:
    """A short finished run in the current folder."""
    shutil.copytree(finished, "runs")
    return command
