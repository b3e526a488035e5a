"""Files are written atomically."""

import os
import sys
from pathlib import Path

import pytest
from conftest import posix

from mnist_lit.system import files
from mnist_lit.system.files import write_atomically


def test_write_creates_parent_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / ("x" * 250)  # the temporary file has no longer name
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_error_names_a_target_that_cannot_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder") as caught:
        write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path]


@posix
@pytest.mark.parametrize("error", [None, OSError(25, "Inappropriate ioctl for device")])
def test_macos_flushes_the_drive_cache_if_supported(
    error: OSError | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    calls = []

    def flush(descriptor: int, command: int) -> None:
        calls.append((os.fstat(descriptor).st_size, command))
        if error:
            raise error

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", flush)
    write_atomically(tmp_path / "file", b"new")
    assert calls == [(3, 51)]
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("failures", [1, 1_000])
def test_windows_retries_to_replace_an_open_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    left, replace = failures, Path.replace

    def busy(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left >= 0:
            raise PermissionError(13, "Permission denied")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files, "RETRY_DELAY", 0)
    if failures > files.MAX_RETRIES:
        with pytest.raises(OSError, match="file"):
            write_atomically(tmp_path / "file", b"new")
        assert not list(tmp_path.iterdir())
    else:
        write_atomically(tmp_path / "file", b"new")
        assert (tmp_path / "file").read_bytes() == b"new"


@posix
def test_nothing_is_written_to_a_device_or_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="Not a file"):
        write_atomically(Path("/dev/null"), b"new")
    monkeypatch.setattr(files, "token_hex", lambda _: "guessed")
    (tmp_path / "mine").write_bytes(b"old")
    (tmp_path / ".guessed.part").symlink_to("mine")
    with pytest.raises(OSError, match="File exists"):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "mine").read_bytes() == b"old"
    assert not (tmp_path / "file").exists()
