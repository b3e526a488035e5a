"""Plain values, which any program can read from a checkpoint."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """Return a setting as a number, a string, a list or a dictionary; NumPy's numbers, ranges and paths are converted.

    A checkpoint with other values could not be loaded without running code.

    Raises:
        ValueError: if it is something else.

    >>> import numpy as np
    >>> plain({"channels": np.array([4, 8]), "learning_rate": np.float64(0.01), "padding": range(2)})
    {'channels': [4, 8], 'learning_rate': 0.01, 'padding': [0, 1]}
    """
    if hasattr(value, "tolist"):  # of NumPy or torch
        value = value.tolist()
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    raise ValueError(f"a setting must be a number, a string or a list, got {value!r}")
