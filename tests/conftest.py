"""Fixtures and constants that several test modules use."""

import csv
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from mnist_lit import cli
from mnist_lit.runs.folders import Run

if TYPE_CHECKING:  # pytest-xdist's first process runs no test: it starts the workers without these imports
    import numpy as np
    from lightning.pytorch import Trainer
    from numpy.typing import NDArray

    from mnist_lit import DigitClassifier

FLAGS = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=60",
    "--model.channels=[4,8]",
]
"""Train for a second or two; validate and test on all images."""

SHORT = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=20",
    "--trainer.limit_val_batches=5",
    "--trainer.limit_test_batches=5",
    "--model.channels=[4,8]",
]
"""Train for less than a second."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a system like Linux or macOS")
TRAIN = Path(__file__).parent.parent / "train.py"
collect_ignore = ["benchmarks"]  # programs that measure when they are imported
RUN = Run(Path("runs/baseline/version_0"))
"""The run of `trained`."""

WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:  # workers, and the processes that they start, share the cores: more threads would wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"  # torch is not imported yet


class Command:
    """The command line in an empty folder."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd

    def __call__(self, *argv: str | Path) -> tuple[int, str, str]:
        """Run a command, and return its exit code, output and error output."""
        self.capfd.readouterr()
        code = cli.main([str(argument) for argument in argv])
        return code, *self.capfd.readouterr()

    def succeed(self, *argv: str | Path) -> str:
        """Run a command, expect that it reports no error and no warning, and return its output."""
        code, out, err = self(*argv)
        assert (code, err) == (0, "")
        return out

    def refuse(self, *argv: str | Path, code: int = 2) -> str:
        """Run a command, expect an exit code and one line of error output, and return that line."""
        ended, _, err = self(*argv)
        assert (ended, err.count("\n")) == (code, 1), err
        return err


def stock_trainer(folder: Path, **arguments: Any) -> "Trainer":
    """Return a plain Lightning Trainer on the CPU, without output or logs."""
    from lightning.pytorch import Trainer

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=folder, accelerator="cpu", **quiet | arguments)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by the names of their columns."""
    with path.open(encoding="utf-8", newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def callback(name: str, **arguments: Any) -> str:
    """Return the flag that adds one of Lightning's callbacks."""
    given = {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": arguments}
    return f"--trainer.callbacks={json.dumps([given])}"


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Path:
    """Return a folder that `make` has filled, once for all tests, and for all workers of pytest-xdist."""
    root = factory.getbasetemp()
    folder = (root.parent if WORKER else root) / f"shared-{name}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make(unfinished := factory.mktemp(name))
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def without_mps() -> None:
    """Train on the CPU on a Mac too: exact results are promised there only, and not all commands have the flag."""
    if sys.platform == "darwin":
        import torch

        torch.backends.mps.is_available = lambda: False


def torch_threads() -> int | None:
    """Return torch's number of threads, None if it is not imported."""
    return torch.get_num_threads() if (torch := sys.modules.get("torch")) else None


@pytest.fixture(autouse=True)
def threads_stay() -> Iterator[None]:
    """Expect that no test leaves another number of threads: those after it would compute other bits."""
    before = torch_threads()
    yield
    assert before in {None, torch_threads()}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MNIST files."""
    from mnist_lit.datasets.catalog import MNIST

    return make_once(tmp_path_factory, "data", MNIST.fetch)


@pytest.fixture(scope="session")
def digits(data_dir: Path) -> "tuple[NDArray[np.uint8], NDArray[np.int64]]":
    """Validation images (5000, 28, 28) and their labels, not used for training."""
    from mnist_lit.datasets.catalog import MNIST
    from mnist_lit.datasets.sampling import split

    pixels, labels = MNIST.read(data_dir, train=True)
    _, val = split(labels, 5_000, 0)
    val.sort()
    return pixels[val, 0].numpy(), labels[val].numpy()


def link_data(data_dir: Path, folder: Path) -> None:
    """Hard-link the MNIST files into `folder`/data: on Windows, symbolic links need rights."""
    shutil.copytree(data_dir, folder / "data", copy_function=os.link)


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Make writes beyond `limit` bytes of a file fail, as on a full disk; not on Windows."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def training_set_only() -> Iterator[None]:
    """Expect that the test set of MNIST is not read."""
    from mnist_lit.datasets.idx import IDXDataset

    read = IDXDataset.read

    def read_training_set(*args: Any, train: bool) -> Any:
        assert train, "the test set is not read"
        return read(*args, train=train)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IDXDataset, "read", read_training_set)
        yield


@pytest.fixture
def open_files_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to remove files that this process has open, as Windows does."""
    remove = os.unlink

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        target = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        for descriptor in range(256):
            with suppress(OSError):  # no such descriptor
                if os.path.samestat(os.fstat(descriptor), target):
                    break
        else:
            return remove(path, dir_fd=dir_fd)
        raise PermissionError(errno.EACCES, "used by another process", str(path))

    monkeypatch.setattr(os, "unlink", unlink)


@pytest.fixture
def command(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """The command line in an empty folder with the MNIST files."""
    monkeypatch.chdir(tmp_path)
    link_data(data_dir, tmp_path)
    return Command(capfd)


def train(folder: Path, data_dir: Path, *flags: str, code: int = 0) -> None:
    """Train in an empty folder, and expect an exit code."""
    link_data(data_dir, folder)
    with chdir(folder):
        assert cli.main(["fit", *flags]) == code


@pytest.fixture(scope="session")
def fast(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> "DigitClassifier":
    """A classifier trained with configs/fast.yaml, to an accuracy of 99 %."""
    from mnist_lit import DigitClassifier

    flag = f"--config={TRAIN.parent / 'configs/fast.yaml'}"
    folder = make_once(tmp_path_factory, "fast", lambda folder: train(folder, data_dir, flag))
    best = folder / "runs/fast/version_0/checkpoints/best.ckpt"
    return DigitClassifier.load_from_checkpoint(best, weights_only=True).eval()


@pytest.fixture(scope="session")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `runs` of a short training."""
    return make_once(tmp_path_factory, "finished", lambda folder: train(folder, data_dir, *FLAGS)) / "runs"


@pytest.fixture
def trained(command: Command, finished: Path) -> Command:
    """`command` in a folder with a finished run."""
    shutil.copytree(finished, "runs")
    return command
