"""Download a file from the first of several mirrors that serves it undamaged."""

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
CHUNK_SIZE = 1 << 16  # bytes
CREDENTIALS = re.compile(
    r"""
      (?<=://)(?!(?<=file://)/)\S*:\S*@     # user:password@, but not in the path of a file URL
    | (?<=//)[^\s/]*@                        # user@
    | (?<!\S)[^\s/\\:@]+:(?![/\\])\S*@      # user:password@ without a scheme before it, but not in a path
    """,
    re.VERBOSE,
)

log = logging.getLogger(__name__)


def download(name: str, mirrors: Sequence[str], max_bytes: int, is_valid: Callable[[bytes], bool]) -> bytes:
    """Return the content of the file `name`, and log a warning with the reason for each mirror that fails before.

    Args:
        name: the file's name, the last part of its URL.
        mirrors: URLs (https, http, file) of folders; for basic authentication with `user:password@`, percent-encoded.
        max_bytes: where to stop reading.
        is_valid: whether content is that of the file.

    Raises:
        OSError: if all mirrors fail, with their reasons.
    """
    failures = []
    for mirror in mirrors:
        try:
            content = _get(_parse(f"{mirror.rstrip('/')}/{name}"), name, max_bytes)
            if is_valid(content):
                return content
            reason = "not the published file"
        except (OSError, HTTPException, ValueError) as error:
            reason = str(error if isinstance(error, HTTPError) else getattr(error, "reason", error))
        failures.append(f"{redact_credentials(mirror)} ({redact_credentials(reason)})")
        log.warning("%s: not served by %s", name, failures[-1])
    raise OSError(f"no mirror serves {name}; tried {'; '.join(failures)}")


def redact_credentials(text: str) -> str:
    """Return a text without the user names and passwords in its URLs.

    A password extends to the last @ before a space: whatever may be part of a password is removed too.

    >>> redact_credentials("https://me:secret@example.org/mnist, me:secret@example.org and /home/me@work/data")
    'https://example.org/mnist, example.org and /home/me@work/data'
    """
    return CREDENTIALS.sub("", text)


def _parse(url: str) -> SplitResult:
    """Return the parts of a URL.

    Raises:
        ValueError: if its scheme is not supported, or it is ambiguous where the password ends and the host begins.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in {"http", "https", "file"}:
        raise ValueError("not an https, http or file URL")
    user, _, _ = rest.rpartition("@")
    if scheme.lower() != "file" and ":" in user and re.search("[/?#]", user):
        raise ValueError("percent-encode a password's / as %2F, ? as %3F and # as %23, or a path's @ as %40")
    return urlsplit(url)


def _get(url: SplitResult, name: str, max_bytes: int) -> bytes:
    from tqdm import tqdm

    user, _, host = url.netloc.rpartition("@")
    request = Request(url._replace(netloc=host).geturl())  # noqa: S310  # the scheme was checked
    if user:  # unredirected: not sent to the server of a redirect
        request.add_unredirected_header("Authorization", f"Basic {b64encode(unquote(user).encode()).decode()}")
    with urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310  # as above
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        content = bytearray()
        hidden = True if url.scheme == "file" else None  # None: shown on a terminal
        with tqdm(desc=name, total=total, unit="B", unit_scale=True, leave=False, disable=hidden) as bar:
            while len(content) <= max_bytes and (chunk := response.read(CHUNK_SIZE)):
                content += chunk
                bar.update(len(chunk))
    if total is not None and len(content) < min(total, max_bytes):
        raise OSError(f"truncated: {len(content):,} of {total:,} bytes")
    return bytes(content)
