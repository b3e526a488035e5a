"""Whatever a mirror does, a file is whole and right, or the reason is told."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random

import pytest
from conftest import MNIST, posix
from server import SHIPPED, Server, serving

from mnist_lit.datasets import mirrors
from mnist_lit.datasets.mirrors import download, redact_credentials

LABELS = MNIST.idx_files[3]
NAME = f"{LABELS.name}.gz"
WHOLE = (SHIPPED / NAME).read_bytes()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "TIMEOUT", 0.5)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def get(*addresses: str) -> bytes:
    return download(NAME, addresses, LABELS.max_bytes, lambda content: LABELS.content(BytesIO(content)) is not None)


@pytest.mark.parametrize("how", ["well", "unsized", "redirect"])
def test_a_whole_file_is_returned(server: Server, how: str) -> None:
    assert get(server.url(how)) == WHOLE
    assert get(server.url(how) + "/") == WHOLE


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("403", "HTTP Error 403: Forbidden"),
        ("404", "HTTP Error 404: Not Found"),
        ("500", "HTTP Error 500: Internal Server Error"),
        ("page", "not the published file"),
        ("flipped", "not the published file"),
        ("short", "cut short: 2,271 of 4,542 bytes"),
        ("stalled", "timed out"),
        ("circle", "redirect"),
        ("private", "HTTP Error 401: Unauthorized"),
    ],
)
def test_a_mirror_that_fails_is_named_with_its_reason_and_the_next_one_is_tried(
    server: Server, how: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert get(server.url(how), server.url("well")) == WHOLE
    [message] = caplog.messages
    assert message.startswith(f"{NAME}: not served by {server.url(how)} (")
    assert reason in message


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9/mnist", "refused|timed out"),
        ("http://nowhere.invalid/mnist", "Name or service not known|Temporary failure|nodename|getaddrinfo"),
        ("file:///nowhere", "No such file or directory|cannot find"),
        ("ftp://127.0.0.1/mnist", "not an https, http or file address"),
        ("nowhere", "not an https, http or file address"),
        ("http://127.0.0.1:port", "nonnumeric port"),
    ],
)
def test_a_mirror_that_cannot_be_reached_is_named_with_its_reason(address: str, reason: str) -> None:
    with pytest.raises(OSError, match=rf"no mirror serves {NAME}; tried .*({reason})"):
        get(address)


def test_reading_stops_a_little_after_the_largest_size(server: Server) -> None:
    sizes = []

    def judge(content: bytes) -> bool:
        sizes.append(len(content))
        return False

    with pytest.raises(OSError, match="not the published file"):
        download(f"{MNIST.idx_files[2].name}.gz", [server.url("well")], 1_000, judge)
    assert 1_000 < sizes[0] <= 1_000 + mirrors.CHUNK


def test_a_password_is_sent_to_its_server_alone_and_never_shown(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    assert get(server.url("private", user="me:p%40ss@")) == WHOLE
    assert server.requests == [("private", NAME, "Basic bWU6cEBzcw==")]
    get(server.url("redirect", user="me:p%40ss@"))
    assert server.requests[1:] == [("redirect", NAME, "Basic bWU6cEBzcw=="), ("well", NAME, None)]

    for address in ("http://me:secret@127.0.0.1:9/mnist", "me:secret@127.0.0.1/mnist", "http://me:secret@h:port/"):
        with pytest.raises(OSError, match="no mirror serves") as caught:
            get(address)
        assert "secret" not in str(caught.value)
    assert "secret" not in caplog.text


@posix
def test_a_download_shows_a_bar_on_a_terminal(server: Server) -> None:
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    code = f"from mnist_lit.datasets.mirrors import download; download({NAME!r}, [{server.url('well')!r}], 10**6, bool)"
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True, cwd=Path(__file__).parent.parent.parent)
    os.close(theirs)
    assert re.search(rf"{NAME}: .*/4.54k \[.*B/s\]", os.read(ours, 65_536).decode())
    os.close(ours)


def test_no_password_is_ever_shown() -> None:
    chance = Random(777)
    printable = [letter for letter in map(chr, range(33, 0x250)) if letter.isprintable()] + 40 * list("/:@?#\\'[],")
    for _ in range(2_000):
        user, password = ("".join(chance.choices(printable, k=chance.randint(1, 9))) for _ in range(2))
        text = "got ['https://{0}host/x'], not http://{0}h:80/y: refused"
        assert redact_credentials(text.format(f"{user}:{password}@")) == text.format("")
    assert redact_credentials("me:se/c@ret@host/a: refused") == "host/a: refused"
    assert redact_credentials("ftp://secret@host/a") == "ftp://host/a"


@pytest.mark.parametrize(
    "text",
    [
        *("/home/me@work: full", "file:///home/me@work/data", "C:\\Users\\me@work: full", "file:///C:/Users/me@work"),
        *("https://cdn.example.org/mnist@1.0/raw", "http://127.0.0.1:9/mnist"),
    ],
)
def test_what_is_no_password_is_shown(text: str) -> None:
    assert redact_credentials(text) == text


@pytest.mark.parametrize("password", ["se/cret", "se?cret", "se#cret", "/@"])
def test_a_password_that_ends_the_host_is_not_sent_anywhere(password: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OSError, match=r"tried http://127.0.0.1:9/x \(percent-encode a password's / as %2F") as caught:
        get(f"http://me:{password}@127.0.0.1:9/x")
    assert password not in f"{caught.value} {caplog.text}"
