"""A download is the published file, or an error names each mirror with its reason."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import posix
from helpers.server import SHIPPED, Server, serving

from mnist_lit.datasets import downloads
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.downloads import PublishedFile, download

LABELS = MNIST.published_files[3]
NAME = LABELS.name
CONTENT = (SHIPPED / NAME).read_bytes()


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT", 0.5)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def get(*urls: str) -> bytes:
    return download(LABELS, urls)


@pytest.mark.parametrize("mode", ["ok", "no_length", "redirect"])
def test_download_returns_the_content(server: Server, mode: str) -> None:
    assert get(server.url(mode)) == CONTENT
    assert get(server.url(mode) + "/") == CONTENT


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("403", "HTTP Error 403: Forbidden"),
        ("404", "HTTP Error 404: Not Found"),
        ("500", "HTTP Error 500: Internal Server Error"),
        ("page", "not the published file"),
        ("corrupt", "not the published file"),
        ("truncated", "truncated: 2,271 of 4,542 bytes"),
        ("stalled", "timed out"),
        ("loop", "redirect"),
    ],
)
def test_failed_mirror_is_logged_and_the_next_one_is_tried(
    server: Server, mode: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert get(server.url(mode), server.url("ok")) == CONTENT
    [message] = caplog.messages
    assert message.startswith(f"{NAME}: not served by {server.url(mode)} (")
    assert reason in message


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/mnist", "refused|timed out"),
        ("http://nowhere.invalid/mnist", "Name or service not known|Temporary failure|nodename|getaddrinfo"),
        ("file:///nowhere", "No such file or directory|cannot find"),
        ("ftp://127.0.0.1/mnist", "not an https, http or file URL"),
        ("nowhere", "not an https, http or file URL"),
        ("http://127.0.0.1:port", "nonnumeric port"),
    ],
)
def test_unreachable_mirror_is_named_with_its_reason(url: str, reason: str) -> None:
    with pytest.raises(OSError, match=rf"no mirror serves {NAME}; tried .*({reason})"):
        get(url)


def test_download_stops_after_the_size_limit_of_a_file(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MAX_FILE_BYTES", 1_000)
    monkeypatch.setattr(downloads, "CHUNK_SIZE", 100)
    sizes = []
    monkeypatch.setattr(PublishedFile, "is_valid", lambda _, content: sizes.append(len(content)))
    with pytest.raises(OSError, match="not the published file"):
        download(MNIST.published_files[2], [server.url("ok")])
    assert sizes == [1_100]


@posix
def test_download_shows_a_progress_bar_on_a_terminal(server: Server) -> None:
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    file = f"PublishedFile({NAME!r}, {LABELS.md5!r})"
    code = f"from mnist_lit.datasets.downloads import *; download({file}, [{server.url('ok')!r}])"
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True, cwd=Path(__file__).parent.parent.parent)
    os.close(theirs)
    assert re.search(rf"{NAME}: .*/4.54k \[.*B/s\]", os.read(ours, 65_536).decode())
    os.close(ours)
