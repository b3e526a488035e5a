"""Fetch and verify the IDX files: the first mirror that serves a file whole wins, and no unverified byte is ever used.

The package is its own first mirror, so nothing here needs a network; torchvision's mirrors stand behind it, and its
list of files with their md5 sums is the reference. Files are kept compressed, in torchvision's folders, and are
verified at every start: a damaged one is fetched again.
"""

import gzip
from collections.abc import Sequence
from hashlib import md5
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import torch
from torch import Tensor
from torchvision.datasets import MNIST

from mnist_lit.files import write_atomically

__all__ = ["DEFAULT_MIRRORS", "fetch", "read"]

DEFAULT_MIRRORS = ((Path(__file__).parent / "mnist").as_uri(), *MNIST.mirrors)
TIMEOUT = 30  # seconds without a byte
TRAIN, TEST = MNIST.resources[:2], MNIST.resources[2:]  # (images, labels), each (file name, md5)


def fetch(data_dir: Path, mirrors: Sequence[str] = DEFAULT_MIRRORS) -> None:
    """Make sure that the four files are in `data_dir/MNIST/raw`, whole and right.

    Raises:
        OSError: naming the file and every mirror tried, or the folder that cannot be written.
    """
    for resource in MNIST.resources:
        _obtain(data_dir, resource, mirrors)


def read(data_dir: Path, *, train: bool, mirrors: Sequence[str] = DEFAULT_MIRRORS) -> tuple[Tensor, Tensor]:
    """Return pixels uint8 (N, 1, 28, 28), 0-255, and labels int64 (N,), 0-9, of the training or the test set.

    Raises:
        OSError: as `fetch`.
    """
    images, labels = (_decode(_obtain(data_dir, resource, mirrors)) for resource in (TRAIN if train else TEST))
    return images.unsqueeze(1), labels.long()


def _obtain(data_dir: Path, resource: tuple[str, str], mirrors: Sequence[str]) -> bytes:
    """Return the verified content of one compressed file, from `data_dir` or else from the first mirror that has it."""
    name, digest = resource
    path = data_dir / "MNIST" / "raw" / name
    if path.is_file() and _md5(content := path.read_bytes()) == digest:
        return content
    reasons = []
    for mirror in mirrors:
        try:
            with urlopen(f"{mirror.rstrip('/')}/{name}", timeout=TIMEOUT) as response:  # noqa: S310  # file: is meant
                content = bytes(response.read())
        except (OSError, HTTPException, ValueError) as error:  # ValueError: not a URL
            reasons.append(f"{_shown(mirror)} ({getattr(error, 'reason', error)})")
            continue
        if _md5(content) == digest:
            write_atomically(path, content)
            return content
        reasons.append(f"{_shown(mirror)} (not the published file: its md5 sum is not {digest})")
    raise OSError(f"no mirror serves {name}; tried {'; '.join(reasons)}; put the file into {path.parent} to go on")


def _md5(content: bytes) -> str:
    return md5(content, usedforsecurity=False).hexdigest()  # the published sums are md5: against damage, not malice


def _shown(mirror: str) -> str:
    """Return the mirror's address without a user name or password."""
    parts = urlsplit(mirror)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _decode(compressed: bytes) -> Tensor:
    """Return the uint8 tensor of a gzipped IDX file: two zero bytes, the dtype (8: uint8), the rank, the dimensions."""
    content = bytearray(gzip.decompress(compressed))
    rank = content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * rank).view(shape)
