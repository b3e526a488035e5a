"""Save checkpoints durably, and open them safely: weights and plain settings only, never code."""

import re
from contextlib import suppress
from io import SEEK_END, BytesIO
from pathlib import Path
from pickle import UnpicklingError
from pickletools import genops
from typing import Any, BinaryIO
from warnings import catch_warnings
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from mnist_lit.classifier import DigitClassifier
from mnist_lit.files import write_atomically
from mnist_lit.processes import say

__all__ = [
    "DurableCheckpointIO",
    "initialize_weights",
    "load_weights",
    "open_checkpoint",
    "precision_of",
    "read_checkpoint",
    "settings_of",
]

KEYS = {
    "state_dict": dict,
    "hyper_parameters": dict,
    "datamodule_hyper_parameters": dict,
    "epoch": int,
    "global_step": int,
}
NAMES = re.compile(
    r"collections (OrderedDict|Counter)|builtins set|_codecs encode|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (Size|\w+Storage|[a-z]\w*)"
)
"""What a checkpoint's pickle may name: what makes values of bytes in the file. `torch.load` allows more, as bytearray,
which makes gigabytes of a number."""
MOST_VALUES = 1_000_000
MOST_NUMBERS = 1_000
"""Of one setting."""


class DurableCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place, flush it to the disk, put it in place in one step."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save, or raise OSError and leave what stood at `path` before."""
        if storage_options is not None:
            raise TypeError("storage_options are for other file systems")
        content = BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint that `fit` wrote.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is something else, damaged, or would run code when loaded.
    """
    with path.open("rb") as file, catch_warnings(action="ignore"):  # torch's, about files of other programs
        try:
            content = _load(file)
            size = file.seek(0, SEEK_END)
        except Exception as error:  # unpickling foreign bytes may raise anything
            raise ValueError(f"{path} is not a complete checkpoint: give another with --ckpt_path") from error
    checks = _has_all_parts, _has_weights, _has_plain_settings, lambda content: _is_bounded(content, size)
    if not isinstance(content, dict) or not all(check(content) for check in checks):
        raise ValueError(f"{path} was not written by this program's fit: give another with --ckpt_path")
    if not all(value.isfinite().all() for value in content["state_dict"].values()):
        raise ValueError(f"{path} has weights that are not finite numbers: give another with --ckpt_path")
    return content


def open_checkpoint(path: Path) -> tuple[Path, dict[str, Any]]:
    """Return a checkpoint's path and content; for a damaged `last.ckpt`, say so and take the newest whole one.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is damaged and there is no other.
    """
    try:
        return path, read_checkpoint(path)
    except ValueError as error:
        if path.name != "last.ckpt":
            raise
        damaged = error
    others = set(path.parent.glob("*.ckpt")) - {path}
    for other in sorted(others, key=lambda other: other.stat().st_mtime_ns, reverse=True):
        with suppress(ValueError):
            content = read_checkpoint(other)
            say(f"{str(damaged).partition(':')[0]}: taking {other} instead")
            return other, content
    raise damaged


def settings_of(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings that a checkpoint carries, by group: `{"model": …, "data": {"batch_size": 100, …}}`.

    Where data is kept and fetched from is none of them: a file of somebody else's must not choose folders and servers.
    """
    data = {
        name: v for name, v in content["datamodule_hyper_parameters"].items() if name not in ("data_dir", "mirrors")
    }
    return {"model": content["hyper_parameters"], "data": data}


def precision_of(content: dict[str, Any]) -> Any:
    """Return the precision that a checkpoint was trained in, as `Trainer.precision` has it."""
    return content.get("precision", "32-true")  # older checkpoints do not say


def load_weights(classifier: DigitClassifier, content: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into `classifier`.

    Raises:
        ValueError: if they belong to another network.
    """
    try:
        classifier.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit the network: was a --model flag changed?") from error


def initialize_weights(classifier: DigitClassifier, content: dict[str, Any], path: Path) -> list[str]:
    """Start `classifier` from a checkpoint's network, and return the names of the tensors whose shapes differ.

    Those keep their initial values. The temperature is not taken: it is fitted to other weights.

    Raises:
        ValueError: if no parameter fits.
    """
    own, given = classifier.network.state_dict(), content["state_dict"]
    fitting = {
        name: given[f"network.{name}"]
        for name, value in own.items()
        if f"network.{name}" in given and given[f"network.{name}"].shape == value.shape
    }
    if not fitting.keys() & dict(classifier.network.named_parameters()).keys():
        raise ValueError(f"no weights in {path} fit the network: give --init_from a checkpoint of the same network")
    classifier.network.load_state_dict(own | fitting)
    return [name for name in own if name not in fitting]


def _load(file: BinaryIO) -> Any:
    size = file.seek(0, SEEK_END)
    with ZipFile(file) as archive:
        members = archive.infolist()
        packed = any(member.compress_type != ZIP_STORED for member in members)
        if packed or sum(member.file_size for member in members) > size:  # torch packs nothing, and would make room
            raise BadZipFile("more in it than its size")
        if damaged := archive.testzip():  # torch does not check the sums
            raise BadZipFile(damaged)
        for member in members:
            if member.filename.endswith(".pkl"):
                _check_names(archive.read(member))
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def _check_names(pickled: bytes) -> None:
    for opcode, name, _ in genops(pickled):
        if opcode.name == "GLOBAL" and not NAMES.fullmatch(str(name)):
            raise UnpicklingError(name)


def _is_bounded(content: dict[Any, Any], size: int) -> bool:
    """Tell whether all values are as many as a training has, and tensors no larger than their file.

    Few bytes may stand for more: a list that contains another one many times, or itself; one number, expanded.
    """
    values, waiting = 0, [content]
    while waiting and values <= MOST_VALUES:
        value = waiting.pop()
        if isinstance(value, torch.Tensor) and value.nbytes > size:
            return False
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        if isinstance(parts, list | tuple | set):
            values += len(parts)
            waiting.extend(parts)
    return not waiting


def _has_all_parts(content: dict[str, Any]) -> bool:
    return all(isinstance(content.get(key), kind) for key, kind in KEYS.items())


def _has_weights(content: dict[str, Any]) -> bool:
    weights = content["state_dict"].items()
    return all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights)


def _has_plain_settings(content: dict[str, Any]) -> bool:
    """Tell whether all settings are numbers, words or short lists of numbers."""
    settings = [value for group in settings_of(content).values() for value in group.values()]
    return all(
        value is None
        or isinstance(value, int | float | str)
        or (
            isinstance(value, list | tuple)
            and len(value) <= MOST_NUMBERS
            and all(isinstance(number, int | float) for number in value)
        )
        for value in settings
    )
