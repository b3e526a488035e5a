"""Open checkpoints safely: weights and plain settings only, never code."""

from pathlib import Path
from typing import Any
from warnings import catch_warnings

import torch

from mnist_lit.classifier import DigitClassifier

__all__ = ["load_weights", "read_checkpoint", "settings_of"]

KEYS = {"state_dict": dict, "hyper_parameters": dict, "datamodule_hyper_parameters": dict, "epoch": int}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint that `fit` wrote.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is something else, damaged, or would run code when loaded.
    """
    with path.open("rb") as file, catch_warnings(action="ignore"):  # torch's, about files of other programs
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling foreign bytes may raise anything
            raise ValueError(f"{path} is not a complete checkpoint: give another with --ckpt_path") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in KEYS.items()):
        raise ValueError(f"{path} was not written by this program's fit: give another with --ckpt_path")
    return content


def settings_of(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings that a checkpoint carries, by group: `{"model": …, "data": {"batch_size": 100, …}}`."""
    return {"model": content["hyper_parameters"], "data": content["datamodule_hyper_parameters"]}


def load_weights(classifier: DigitClassifier, content: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into `classifier`.

    Raises:
        ValueError: if they belong to another network.
    """
    try:
        classifier.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit the network: was a --model flag changed?") from error
