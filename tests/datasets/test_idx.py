"""The files in the data folder are right, or are made right, or one line says what to do; nobody sees half of one."""

import gzip
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, rmtree

import pytest
import torch
from conftest import MNIST, posix
from server import SHIPPED, serving
from torchvision import datasets as listed

from mnist_lit.datasets.catalog import DATASETS

PACKAGE = [SHIPPED.as_uri()]
NAMES = sorted(f"{file.name}.gz" for file in MNIST.idx_files)
IMAGES = MNIST.idx_files[2].name
AS_NOBODY = "os.geteuid() or os.setuid(65_534)"  # root may write anywhere
PROJECT = Path(__file__).parent.parent.parent
IMPORTS = """
import os, signal, sys
from pathlib import Path
from mnist_lit.datasets.catalog import DATASETS
"""
FETCH = """
try:
    DATASETS["MNIST"].fetch(Path(sys.argv[1]), sys.argv[2:] or None)
    DATASETS["MNIST"].read(Path(sys.argv[1]), train=False)
except OSError as error:
    sys.exit(f"{error}")
"""


def raw(data_dir: Path) -> Path:
    return data_dir / "MNIST" / "raw"


def names(data_dir: Path) -> list[str]:
    return sorted(path.name for path in raw(data_dir).iterdir() if path.name != ".lock")


def start(data_dir: Path, *mirrors: str, before: str = "") -> "subprocess.Popen[str]":
    """Fetch and read in a process of its own, after the line `before`."""
    return subprocess.Popen(
        [sys.executable, "-c", IMPORTS + before + FETCH, str(data_dir), *mirrors],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


@pytest.fixture
def local(data_dir: Path, tmp_path: Path) -> Path:
    """A copy of the right files that a test may damage."""
    return copytree(data_dir, tmp_path / "local")


def test_a_first_fetch_needs_no_network(tmp_path: Path) -> None:
    assert MNIST.mirrors[0] == SHIPPED.as_uri()
    MNIST.fetch(tmp_path)
    assert names(tmp_path) == NAMES


def test_images_and_labels_are_those_that_torchvision_reads(local: Path) -> None:
    theirs = listed.MNIST(str(local), train=False, download=True)  # extracts the files that are there
    pixels, labels = MNIST.read(local, train=False)
    assert pixels.shape == (10_000, 1, 28, 28)
    assert torch.equal(pixels.squeeze(1), theirs.data)
    assert torch.equal(labels, theirs.targets)


def test_the_training_set_is_whole(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=True)
    assert (pixels.shape, pixels.dtype) == ((60_000, 1, 28, 28), torch.uint8)
    assert torch.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_extracted_files_that_torchvision_left_are_used(local: Path) -> None:
    for path in list(raw(local).glob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    before = names(local)
    MNIST.fetch(local, ["file:///nowhere"])
    assert len(MNIST.read(local, train=True)[1]) == 60_000
    assert names(local) == before


@pytest.mark.parametrize("damage", ["empty", "page", "truncated", "another file"])
def test_a_damaged_file_is_named_set_aside_and_fetched_again(
    local: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = raw(local) / f"{IMAGES}.gz"
    whole = path.read_bytes()
    damaged = {
        "empty": b"",
        "page": b"<html>not found</html>",
        "truncated": whole[: len(whole) // 2],
        "another file": (raw(local) / NAMES[1]).read_bytes(),
    }[damage]
    path.write_bytes(damaged)
    with pytest.raises(OSError, match=rf"{IMAGES}.gz is missing or damaged"):
        MNIST.read(local, train=False)
    MNIST.fetch(local, PACKAGE)
    assert path.read_bytes() == whole
    assert path.with_name(f"{IMAGES}.gz.damaged").read_bytes() == damaged
    assert caplog.messages == [f"{path} is damaged: kept as {IMAGES}.gz.damaged, fetching it again"]


def test_a_damaged_extracted_file_is_set_aside_too(local: Path) -> None:
    (raw(local) / f"{IMAGES}.gz").unlink()
    (raw(local) / IMAGES).write_bytes(b"\0" * 7_840_016)
    MNIST.fetch(local, PACKAGE)
    assert names(local) == sorted([*NAMES, f"{IMAGES}.damaged"])


def test_when_no_mirror_serves_a_file_the_message_says_how_to_go_on_offline(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no mirror serves train-images-idx3-ubyte\.gz") as caught:
        MNIST.fetch(tmp_path, ["file:///nowhere", "http://127.0.0.1:9/mnist"])
    message = str(caught.value)
    assert "file:///nowhere (" in message
    assert "http://127.0.0.1:9/mnist (" in message
    assert message.partition("To go on offline, put ")[2] == (
        "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
        f"t10k-labels-idx1-ubyte.gz into {raw(tmp_path)}"
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_that_start_at_once_fetch_once_and_all_succeed(tmp_path: Path, count: int) -> None:
    with serving() as server:
        processes = [start(tmp_path, server.url("well")) for _ in range(count)]
        for process in processes:
            assert process.communicate() == ("", "")
        assert sorted(name for _, name, _ in server.requests) == NAMES
    assert names(tmp_path) == NAMES


def test_a_file_is_there_whole_or_not_at_all_while_it_is_fetched(tmp_path: Path) -> None:
    with serving(delay=0.1) as server:
        process = start(tmp_path, server.url("slow"))
        seen = set()
        while process.poll() is None:
            seen |= {path.stat().st_size for path in raw(tmp_path).glob("*.gz")}
        assert process.communicate() == ("", "")
    assert seen <= {(SHIPPED / name).stat().st_size for name in NAMES}


@posix
@pytest.mark.parametrize("moment", [pytest.param("download", marks=pytest.mark.slow), "write"])
def test_a_fetch_that_was_killed_is_done_by_the_next_start_and_leaves_nothing(tmp_path: Path, moment: str) -> None:
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
def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    process = start(
        tmp_path, before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    )
    _, err = process.communicate()
    assert process.returncode == 1
    assert "File too large" in err
    assert str(raw(tmp_path) / "train-images-idx3-ubyte.gz") in err
    assert names(tmp_path) == []


@pytest.fixture
def another_users_folder(data_dir: Path) -> Iterator[Path]:
    """The right files in a folder that the other user may read but not write."""
    parent = Path(tempfile.mkdtemp())
    parent.chmod(0o755)
    folder = copytree(data_dir, parent / "data")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    rmtree(parent)


@posix
def test_the_right_files_in_a_folder_that_cannot_be_written_are_enough(another_users_folder: Path) -> None:
    process = start(another_users_folder, "file:///nowhere", before=AS_NOBODY)
    _, err = process.communicate()
    assert process.returncode == 0, err


@posix
def test_a_folder_that_cannot_be_written_is_named(another_users_folder: Path) -> None:
    (raw(another_users_folder) / NAMES[0]).chmod(0o644)
    (raw(another_users_folder) / NAMES[0]).write_bytes(b"damaged")
    process = start(another_users_folder, before=AS_NOBODY)
    _, err = process.communicate()
    assert process.returncode == 1
    assert "Permission denied" in err
    assert str(raw(another_users_folder)) in err


def test_other_data_sets_have_a_folder_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"FashionMNIST.raw"):
        DATASETS["FashionMNIST"].fetch(tmp_path, PACKAGE)
