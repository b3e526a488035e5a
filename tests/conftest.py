"""What several test modules need."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from mnist_lit import cli, idx
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


@pytest.fixture
def trained(command: Command) -> Command:
    """A short finished run in the current folder."""
    assert command("fit", *FLAGS)[0] == 0
    return command
