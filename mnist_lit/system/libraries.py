"""Messages of libraries."""

import logging
import warnings

__all__ = ["silence_libraries"]

EXPECTED_WARNINGS = (
    ".*does not have many workers",  # batches from memory are slower through workers
    ".*treespec, LeafSpec",  # Lightning 2.6 uses what torch 2.14 deprecates
    ".*is smaller than the logging interval",  # the learning rate is logged at the end of a short epoch too
    "Checkpoint directory .* exists and is not empty",  # a resumed run has checkpoints
    ".*``compute`` method of metric",  # an epoch that is resumed at its end has its metrics from the checkpoint
    r"Total length of `DataLoader` across ranks is zero",  # `fast_dev_run` without validation images
)
"""Patterns of warnings about which a user can do nothing."""


def silence_libraries() -> None:
    """Silence what a user can do nothing about. Lightning sets the levels of its loggers when it is imported."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # which a user has asked for
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
