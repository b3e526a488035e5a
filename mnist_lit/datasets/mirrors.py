"""Download a file from the first mirror that serves it whole."""

import logging
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import Request, urlopen

__all__ = ["download", "redact_credentials"]

TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 16  # bytes
PASSWORD = re.compile(
    r"""
      (?<=://)(?!(?<=file://)/)\S*:\S*@     # user:password@, but no path of a file
    | (?<=//)[^\s/]*@                        # user@
    | (?<!\S)[^\s/\\:@]+:(?![/\\])\S*@      # user:password@ where no scheme is before it, but no path
    """,
    re.VERBOSE,
)

log = logging.getLogger(__name__)


def download(name: str, mirrors: Sequence[str], max_bytes: int, is_right: Callable[[bytes], bool]) -> bytes:
    """Return the file `name` from the first of `mirrors` that serves it whole; name those that do not, with the reason.

    Args:
        name: the file's name, the last part of its address.
        mirrors: addresses (https, http, file) of folders; with `user:password@`, percent-encoded, where a server asks.
        max_bytes: where to stop reading.
        is_right: whether content is that of the file.

    Raises:
        OSError: if no mirror serves it, naming all of them.
    """
    reasons = []
    for mirror in mirrors:
        try:
            content = _get(_split_address(f"{mirror.rstrip('/')}/{name}"), name, max_bytes)
            if is_right(content):
                return content
            reason = "not the published file"
        except (OSError, HTTPException, ValueError) as error:
            reason = str(error if isinstance(error, HTTPError) else getattr(error, "reason", error))
        reasons.append(f"{redact_credentials(mirror)} ({redact_credentials(reason)})")
        log.warning("%s: not served by %s", name, reasons[-1])
    raise OSError(f"no mirror serves {name}; tried {'; '.join(reasons)}")


def redact_credentials(text: str) -> str:
    """Return a text without the user names and passwords in its addresses.

    A password ends at the last @ before a space. So what stands before an @ is left out too where it may be a password.

    >>> redact_credentials("https://me:secret@example.org/mnist, me:secret@example.org and /home/me@work/data")
    'https://example.org/mnist, example.org and /home/me@work/data'
    """
    return PASSWORD.sub("", text)


def _split_address(address: str) -> SplitResult:
    """Return the parts of a mirror's address.

    Raises:
        ValueError: if it is no https, http or file address, or the host in it cannot be told from a password.
    """
    scheme, separator, rest = address.partition("://")
    if not separator or scheme.lower() not in {"http", "https", "file"}:
        raise ValueError("not an https, http or file address")
    user, _, _ = rest.rpartition("@")
    if scheme.lower() != "file" and ":" in user and re.search("[/?#]", user):
        raise ValueError("percent-encode a password's / as %2F, ? as %3F and # as %23, or a path's @ as %40")
    return urlsplit(address)


def _get(address: SplitResult, name: str, max_bytes: int) -> bytes:
    from tqdm import tqdm

    user, _, host = address.netloc.rpartition("@")
    request = Request(address._replace(netloc=host).geturl())  # noqa: S310  # its scheme is one of the three
    if user:  # not forwarded when the server redirects to another one
        request.add_unredirected_header("Authorization", f"Basic {b64encode(unquote(user).encode()).decode()}")
    with urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310  # as above
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        content = bytearray()
        # A bar on a terminal; a file in this machine needs none.
        hidden = True if address.scheme == "file" else None
        with tqdm(desc=name, total=total, unit="B", unit_scale=True, leave=False, disable=hidden) as bar:
            while len(content) <= max_bytes and (chunk := response.read(CHUNK)):
                content += chunk
                bar.update(len(chunk))
    if total is not None and len(content) < min(total, max_bytes):
        raise OSError(f"cut short: {len(content):,} of {total:,} bytes")
    return bytes(content)
