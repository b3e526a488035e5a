"""A file is either the old one or the new one."""

import os
import sys
from pathlib import Path

import pytest
from conftest import posix

from mnist_lit.system import files
from mnist_lit.system.files import write_atomically


def test_content_is_written_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_target_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder") as caught:
        write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path]


@posix
@pytest.mark.parametrize("able", [True, False])
def test_on_a_mac_content_leaves_the_memory_of_the_drive_where_it_can(
    able: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fcntl

    asked = []

    def flush(descriptor: int, command: int) -> None:
        asked.append((os.fstat(descriptor).st_size, command))
        if not able:
            raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", flush)
    write_atomically(tmp_path / "file", b"new")
    assert asked == [(3, 51)]
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("refusals", [1, 1_000])
def test_on_windows_a_file_that_is_read_is_replaced_afterwards_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    left, replace = refusals, Path.replace

    def busy(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left >= 0:
            raise PermissionError(13, "Permission denied")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files, "PAUSE", 0)
    if refusals > files.TRIES:
        with pytest.raises(OSError, match="file"):
            write_atomically(tmp_path / "file", b"new")
        assert not list(tmp_path.iterdir())
    else:
        write_atomically(tmp_path / "file", b"new")
        assert (tmp_path / "file").read_bytes() == b"new"
