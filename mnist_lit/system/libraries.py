"""Settings of libraries: their messages, how they look for a GPU, and how they allocate memory."""

import ctypes
import logging
import os
import sys
import warnings
from contextlib import suppress

from mnist_lit.system.output import say

__all__ = ["describe_load", "keep_freed_memory", "set_up_libraries"]

EXPECTED_WARNINGS = (
    ".*does not have many workers",  # batches from memory are slower through workers
    ".*treespec, LeafSpec",  # Lightning 2.6 uses what torch 2.14 deprecates
    ".*is smaller than the logging interval",  # the learning rate is logged at the end of a short epoch too
    "Checkpoint directory .* exists and is not empty",  # a resumed run has checkpoints
    ".*configured with multiple `ModelCheckpoint` callbacks",  # the first one is the run's own
    r"Total length of `DataLoader` across ranks is zero",  # `fast_dev_run` without validation images
)
"""Patterns of warnings about which a user can do nothing."""


GPU_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""An environment variable of torch, set by Lightning: torch loads the driver's library to look for a GPU."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
MAX_LOAD = 1.25
"""Load average for each core up to which nothing is said: a run that has just ended leaves about 1."""


def set_up_libraries() -> None:
    """Silence what a user can do nothing about, and let Adam not load a missing driver in each step.

    Lightning sets the levels of its loggers, and `GPU_CHECK`, when it is imported.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("tensorboard", "matplotlib"):  # a resumed run's curves are read, and fonts are looked for
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # which a user has asked for
    for name in [name for name in os.environ if name.startswith("PL_TRAINER_")]:  # which Lightning reads
        say(f"{name} is ignored: give --{name.removeprefix('PL_').lower().replace('_', '.', 1)} instead")
        del os.environ[name]
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    if GPU_CHECK in os.environ and "lightning" in sys.modules:
        import torch

        if not torch.cuda.is_available():
            del os.environ[GPU_CHECK]


def describe_load() -> str | None:
    """Return a line that says what helps where programs have more threads than there are cores, or None.

    In each step, the threads of torch wait for each other in a loop. On a core that they share, the one that has work
    waits for that loop. `OMP_WAIT_POLICY=passive` makes them sleep, which is slower where nothing else runs.
    """
    import torch

    cores, load = os.cpu_count() or 1, 0.0
    with suppress(OSError, AttributeError):  # on Windows there is none
        load, *_ = os.getloadavg()
    if load < MAX_LOAD * cores or torch.get_num_threads() == 1 or "OMP_WAIT_POLICY" in os.environ:
        return None
    if_others = "if other programs cause it, OMP_WAIT_POLICY=passive in the environment helps"
    return f"load {load:.1f} on {cores} cores in the last minute: {if_others}"


def keep_freed_memory() -> None:
    """Let glibc's malloc keep freed memory for the rest of the process; does nothing on systems without glibc.

    By default it returns the tensors of each training step to the system, which must find and clear pages for the next
    one: up to half of the step's time, and most of its variation. The process grows no larger than its largest step
    (https://man7.org/linux/man-pages/man3/mallopt.3.html).
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_TRIM_THRESHOLD, -1)  # never shrink the heap
        mallopt(M_MMAP_MAX, 0)  # allocate large tensors on the heap too
