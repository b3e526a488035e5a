"""What several test modules need."""

import builtins
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from mnist_lit import DigitClassifier, cli, idx
from mnist_lit.datasets import DATASETS
from mnist_lit.runs import Run

FLAGS = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=60", "--model.channels=[4,8]"]
"""Of a training that takes a second or two, on real digits; evaluation is whole."""

SHORT = [
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=20",
    "--trainer.limit_val_batches=5",
    "--trainer.limit_test_batches=5",
    "--model.channels=[4,8]",
]
"""Of one that takes less than a second."""

TRAIN = Path(__file__).parent.parent / "train.py"
collect_ignore = ["benchmarks"]  # programs, which measure when they are imported
RUN = Run(Path("runs/baseline/version_0"))
"""What `trained` leaves."""

MNIST = DATASETS["MNIST"]
Command = Callable[..., tuple[int, str, str]]


def stock_trainer(folder: Path, **arguments: Any) -> Trainer:
    """Return Lightning's own Trainer, without a word or a log."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=folder, accelerator="cpu", **quiet | arguments)


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
    idx.fetch(MNIST, folder)
    return folder


@pytest.fixture
def command(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Run a command line in an empty folder; return its exit code, output and error output."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data_dir)

    def run(*argv: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main([str(argument) for argument in argv])
        return code, *capfd.readouterr()

    return run


def train(folder: Path, data_dir: Path, *flags: str) -> None:
    """Train in a process of its own, in an empty folder."""
    (folder / "data").symlink_to(data_dir)
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
