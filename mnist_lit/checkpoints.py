"""Open checkpoints safely: weights and plain settings only, never code."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from warnings import catch_warnings

import torch

from mnist_lit.classifier import DigitClassifier

__all__ = ["load_weights", "read_checkpoint", "settings_of"]

KEYS = {"state_dict", "hyper_parameters", "datamodule_hyper_parameters", "epoch"}
DAMAGED = (UnpicklingError, RuntimeError, EOFError, OSError)  # OSError: a seek past the end of a truncated file


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint that `fit` wrote.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is something else, damaged, or would run code when loaded.
    """
    with path.open("rb") as file, catch_warnings(action="ignore"):  # torch's, about files of other programs
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except DAMAGED as error:
            raise ValueError(f"{path} is no whole checkpoint of this program: give another with --ckpt_path") from error
    if not isinstance(content, dict) or not content.keys() >= KEYS:
        raise ValueError(f"{path} was not written by this program's fit: give another with --ckpt_path")
    return content


def settings_of(content: dict[str, Any]) -> dict[str, Any]:
    """Return the model and data settings that a checkpoint carries, as flags: `{"data.batch_size": 100, …}`."""
    groups = {"model": content["hyper_parameters"], "data": content["datamodule_hyper_parameters"]}
    return {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}


def load_weights(classifier: DigitClassifier, content: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into `classifier`.

    Raises:
        ValueError: if they belong to another network.
    """
    try:
        classifier.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit the network: was a --model flag changed?") from error
