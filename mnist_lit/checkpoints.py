"""Save checkpoints durably, and open them safely: weights and plain settings only, never code."""

from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from warnings import catch_warnings
from zipfile import BadZipFile, ZipFile

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
        except Exception as error:  # unpickling foreign bytes may raise anything
            raise ValueError(f"{path} is not a complete checkpoint: give another with --ckpt_path") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in KEYS.items()):
        raise ValueError(f"{path} was not written by this program's fit: give another with --ckpt_path")
    if not all(isinstance(value, torch.Tensor) and value.isfinite().all() for value in content["state_dict"].values()):
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

    Those keep their initial values.     The temperature is not taken: it is fitted to other weights.

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
    if damaged := ZipFile(file).testzip():  # torch does not check the sums
        raise BadZipFile(damaged)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)
