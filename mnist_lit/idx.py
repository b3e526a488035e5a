"""The files of a data set in a folder: verified at every start, fetched where missing or damaged, read into tensors.

The folders are torchvision's, `data_dir/<data set>/raw`, and files that torchvision has left there are used if they are
right: compressed as published or, where the sum of the content is known, extracted. No unverified byte is ever used.
"""

import logging
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from mnist_lit.datasets import MAX_BYTES, IDXFile, ImageDataset
from mnist_lit.files import write_atomically
from mnist_lit.mirrors import download

__all__ = ["fetch", "read"]

log = logging.getLogger(__name__)


def fetch(dataset: ImageDataset, data_dir: Path, mirrors: Sequence[str] | None = None) -> None:
    """Make sure that the four files are there, whole and right; touch no network and write nothing if they are.

    Several processes may do so at once: one fetches, the others wait for it.

    Raises:
        OSError: naming the file and every mirror tried, or the folder that cannot be written.
    """
    folder = _folder(dataset, data_dir)
    missing = [file for file in (*dataset.train, *dataset.test) if not _is_there(folder, file)]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for unfinished in folder.glob(".*.part"):  # of a process that was killed: this one holds the lock
            unfinished.unlink()
        for file in missing:
            if not _is_there(folder, file):
                _set_aside(folder, file)
                write_atomically(folder / f"{file.name}.gz", _download(dataset, file, folder, mirrors))


def read(dataset: ImageDataset, data_dir: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Return pixels uint8 (N, 1, 28, 28), 0-255, and labels int64 (N,), 0-9, of the training or the test set.

    Raises:
        OSError: if a file is missing or damaged: `fetch` comes first.
        ValueError: if images and labels are not as many, or labels not 0-9.
    """
    folder = _folder(dataset, data_dir)
    tensors = []
    for file in dataset.train if train else dataset.test:
        if (content := _content(folder, file)) is None:
            raise OSError(f"{folder / file.name}.gz is missing or damaged")
        tensors.append(_decode(content))
    images, labels = tensors
    if len(images) != len(labels) or labels.max() >= len(dataset.classes):
        raise ValueError(f"{folder}: {len(images):,} images, {len(labels):,} labels up to {labels.max()}")
    return images.unsqueeze(1), labels.long()


def _folder(dataset: ImageDataset, data_dir: Path) -> Path:
    return data_dir / dataset.name / "raw"


def _candidates(folder: Path, file: IDXFile) -> Iterator[Path]:
    """Yield where a file may be: compressed, or extracted by torchvision."""
    return (path for path in (folder / f"{file.name}.gz", folder / file.name) if path.is_file())


def _is_there(folder: Path, file: IDXFile) -> bool:
    for path in _candidates(folder, file):
        with path.open("rb") as stream:
            if file.is_right(stream):
                return True
    return False


def _content(folder: Path, file: IDXFile) -> bytearray | None:
    """Return the verified content of a file, or None if it is missing or damaged."""
    for path in _candidates(folder, file):
        with path.open("rb") as stream:
            if (content := file.content(stream)) is not None:
                return content
    return None


def _set_aside(folder: Path, file: IDXFile) -> None:
    """Keep a damaged file under another name, where nothing takes it for the right one."""
    for path in _candidates(folder, file):
        log.warning("%s is damaged: kept as %s.damaged, fetching it again", path, path.name)
        path.replace(path.with_name(f"{path.name}.damaged"))


def _download(dataset: ImageDataset, file: IDXFile, folder: Path, mirrors: Sequence[str] | None) -> bytes:
    try:
        return download(
            f"{file.name}.gz",
            mirrors or dataset.mirrors,
            MAX_BYTES,
            lambda content: file.is_right(BytesIO(content)),
        )
    except OSError as error:
        names = ", ".join(f"{file.name}.gz" for file in (*dataset.train, *dataset.test))
        raise OSError(f"{error}. To go on offline, put {names} into {folder}") from error


def _decode(content: bytearray) -> Tensor:
    """Return the uint8 tensor of an IDX file: two zero bytes, dtype (8: uint8), rank, dimensions, data."""
    rank = content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * rank).view(shape)
