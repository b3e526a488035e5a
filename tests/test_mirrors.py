"""The data are the published ones, or nothing is trained on."""

from pathlib import Path
from shutil import copytree

import pytest
import torch
from torchvision.datasets import MNIST

from mnist_lit import mirrors

PACKAGE = Path(mirrors.__file__).parent / "mnist"
NAMES = sorted(name for name, _ in MNIST.resources)


def raw(data_dir: Path) -> Path:
    return data_dir / "MNIST" / "raw"


@pytest.fixture
def local(data_dir: Path, tmp_path: Path) -> Path:
    """A copy of the real files that a test may damage."""
    return copytree(data_dir, tmp_path / "local")


def test_the_package_serves_the_published_files_without_a_network(tmp_path: Path) -> None:
    mirrors.fetch(tmp_path, mirrors.DEFAULT_MIRRORS[:1])
    assert sorted(path.name for path in raw(tmp_path).iterdir()) == NAMES


def test_images_and_labels_are_those_that_torchvision_reads(local: Path) -> None:
    theirs = MNIST(str(local), train=False, download=True)  # extracts the files that are there
    pixels, labels = mirrors.read(local, train=False)
    assert pixels.shape == (10_000, 1, 28, 28)
    assert torch.equal(pixels.squeeze(1), theirs.data)
    assert torch.equal(labels, theirs.targets)


def test_the_training_set_is_whole(data_dir: Path) -> None:
    pixels, labels = mirrors.read(data_dir, train=True)
    assert (pixels.shape, pixels.dtype) == ((60_000, 1, 28, 28), torch.uint8)
    assert torch.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_files_that_are_there_need_no_mirror(data_dir: Path) -> None:
    mirrors.fetch(data_dir, ["http://localhost:9/nothing-here"])


@pytest.mark.parametrize("damage", [b"", b"<html>not found</html>", b"half"], ids=["empty", "page", "truncated"])
def test_a_damaged_file_is_fetched_again(local: Path, damage: bytes) -> None:
    path = raw(local) / NAMES[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage == b"half" else damage)
    mirrors.read(local, train=False, mirrors=[PACKAGE.as_uri()])
    assert path.read_bytes() == whole


def test_the_first_mirror_that_serves_a_whole_file_wins(tmp_path: Path) -> None:
    (wrong := tmp_path / "wrong").mkdir()
    (wrong / NAMES[0]).write_bytes(b"<html>welcome</html>")
    mirrors.fetch(tmp_path, ["no address", wrong.as_uri(), PACKAGE.as_uri()])
    assert sorted(path.name for path in raw(tmp_path).iterdir()) == NAMES


def test_when_no_mirror_serves_a_file_all_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    (wrong := tmp_path / "wrong").mkdir()
    (wrong / MNIST.resources[0][0]).write_bytes(b"<html>welcome</html>")
    with pytest.raises(OSError, match=r"no mirror serves train-images-idx3-ubyte\.gz") as caught:
        mirrors.fetch(tmp_path, [wrong.as_uri(), "http://me:secret@localhost:9/mnist"])
    message = str(caught.value)
    assert "not the published file" in message
    assert "http://localhost:9/mnist (" in message
    assert "secret" not in message
    assert str(raw(tmp_path)) in message
    assert not raw(tmp_path).exists()
