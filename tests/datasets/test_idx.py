"""The files of a data set are verified, downloaded where missing or damaged, and never visible half written."""

import signal
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest
import torch
from conftest import full_disk, posix
from helpers.server import SHIPPED, serving
from torchvision import datasets as listed

from mnist_lit.datasets.catalog import DATASETS, MNIST

PACKAGE = [SHIPPED.as_uri()]
NAMES = sorted(file.name for file in MNIST.published_files)
IMAGES = MNIST.published_files[2].name
WHOLE = (SHIPPED / IMAGES).read_bytes()
PROJECT = Path(__file__).parent.parent.parent
FETCH = f"""
import os, signal, sys
from pathlib import Path
from mnist_lit.datasets.idx import IDXDataset

MNIST = {MNIST!r}  # without the import of torchvision, which takes a second
{{}}
MNIST.fetch(Path(sys.argv[1]), sys.argv[2:] or None)
MNIST.read(Path(sys.argv[1]), train=False)
"""


def raw(data_dir: Path) -> Path:
    return data_dir / "MNIST" / "raw"


def names(data_dir: Path) -> list[str]:
    return sorted(path.name for path in raw(data_dir).iterdir() if path.name != ".lock")


def start(data_dir: Path, *mirrors: str, before: str = "") -> "subprocess.Popen[str]":
    """Fetch and read in another process, after the statement `before`."""
    return subprocess.Popen(
        [sys.executable, "-c", FETCH.format(before), str(data_dir), *mirrors],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


@pytest.fixture
def local(data_dir: Path, tmp_path: Path) -> Path:
    """A copy of the files that a test may damage."""
    return copytree(data_dir, tmp_path / "local")


def test_images_and_labels_equal_those_of_torchvision(local: Path) -> None:
    theirs = listed.MNIST(str(local), train=False, download=True)
    pixels, labels = MNIST.read(local, train=False)
    assert torch.equal(pixels, theirs.data[:, None])
    assert torch.equal(labels, theirs.targets)


def test_the_package_includes_the_whole_training_set(data_dir: Path) -> None:
    assert MNIST.mirrors[0] == SHIPPED.as_uri()
    pixels, labels = MNIST.read(data_dir, train=True)
    assert (pixels.shape, pixels.dtype) == ((60_000, 1, 28, 28), torch.uint8)
    assert torch.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.parametrize(
    "damaged",
    [b"", b"<html>not found</html>", WHOLE[: len(WHOLE) // 2], (SHIPPED / NAMES[1]).read_bytes()],
    ids=["empty", "page", "truncated", "another file"],
)
def test_a_damaged_file_is_reported_kept_and_downloaded_again(
    local: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (path := raw(local) / IMAGES).write_bytes(damaged)
    with pytest.raises(OSError, match=rf"{IMAGES} is missing or damaged"):
        MNIST.read(local, train=False)
    MNIST.fetch(local, PACKAGE)
    assert names(local) == sorted([*NAMES, f"{IMAGES}.damaged"])
    assert path.read_bytes() == WHOLE
    assert path.with_name(f"{IMAGES}.damaged").read_bytes() == damaged
    assert caplog.messages == [f"{path} is damaged: kept as {IMAGES}.damaged, fetching it again"]


@pytest.mark.slow
def test_processes_that_start_together_download_each_file_once_and_never_see_part_of_one(tmp_path: Path) -> None:
    with serving(delay=0.2) as server:
        processes = [start(tmp_path, server.url("slow")) for _ in range(8)]
        sizes = set()
        while None in [process.poll() for process in processes]:
            sizes |= {path.stat().st_size for path in raw(tmp_path).glob("*.gz")}
        assert [process.communicate() for process in processes] == [("", "")] * 8
        assert sorted(name for _, name, _ in server.requests) == NAMES
    assert names(tmp_path) == NAMES
    assert sizes <= {(SHIPPED / name).stat().st_size for name in NAMES}


@posix
@pytest.mark.parametrize("moment", [pytest.param("download", marks=pytest.mark.slow), "write"])
def test_after_a_kill_the_next_fetch_completes_the_files_and_removes_the_rest(tmp_path: Path, moment: str) -> None:
    if moment == "download":
        with serving(delay=60) as server:
            process = start(tmp_path, server.url("stalled"))
            while not server.requests:
                assert process.poll() is None
            process.kill()
    else:
        process = start(tmp_path, before="os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not set(names(tmp_path)) & set(NAMES)
    MNIST.fetch(tmp_path)
    assert names(tmp_path) == NAMES


@posix
def test_a_full_disk_is_reported_and_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    with full_disk(1_000_000), pytest.raises(OSError, match="File too large") as caught:
        MNIST.fetch(tmp_path)
    assert str(raw(tmp_path) / "train-images-idx3-ubyte.gz") in str(caught.value)
    assert names(tmp_path) == []


def test_valid_files_are_used_without_writing_anything(local: Path) -> None:
    """The folder may be read-only."""
    (raw(local) / ".lock").unlink(missing_ok=True)
    MNIST.fetch(local, ["file:///nowhere"])
    assert sorted(path.name for path in raw(local).iterdir()) == NAMES


def test_each_data_set_has_its_own_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"FashionMNIST.raw"):
        DATASETS["FashionMNIST"].fetch(tmp_path, PACKAGE)
