"""Settings of libraries: their messages, and how they look for a GPU."""

import logging
import os
import sys
import warnings

__all__ = ["set_up_libraries"]

EXPECTED_WARNINGS = (
    ".*does not have many workers",  # batches from memory are slower through workers
    ".*treespec, LeafSpec",  # Lightning 2.6 uses what torch 2.14 deprecates
    ".*is smaller than the logging interval",  # the learning rate is logged at the end of a short epoch too
    "Checkpoint directory .* exists and is not empty",  # a resumed run has checkpoints
    ".*``compute`` method of metric",  # an epoch that is resumed at its end has its metrics from the checkpoint
    r"Total length of `DataLoader` across ranks is zero",  # `fast_dev_run` without validation images
)
"""Patterns of warnings about which a user can do nothing."""


GPU_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""An environment variable of torch, set by Lightning: torch loads the driver's library to look for a GPU."""


def set_up_libraries() -> None:
    """Silence what a user can do nothing about, and let Adam not load a missing driver in each step.

    Lightning sets the levels of its loggers, and `GPU_CHECK`, when it is imported.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # which a user has asked for
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    if GPU_CHECK in os.environ and "lightning" in sys.modules:
        import torch

        if not torch.cuda.is_available():
            del os.environ[GPU_CHECK]
