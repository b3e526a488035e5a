"""Distributed training: the rank of this process, printing on rank 0, and shutdown."""

import os

from torch import distributed

__all__ = ["is_one_process", "process_rank", "rank_zero_print", "shutdown_process_group"]


def process_rank() -> int:
    """Return the rank set by the launcher (Lightning, torchrun or SLURM), 0 without one."""
    return int(next((os.environ[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), 0))


def rank_zero_print(*values: object) -> None:
    """Print in the first process."""
    if process_rank() == 0:
        print(*values)


def is_one_process(devices: list[int] | str | int, nodes: int) -> bool:
    """Return whether a Trainer with these settings trains in one process.

    >>> [is_one_process(devices, 1) for devices in (1, "1", [3], 2, [0, 1], "auto")]
    [True, True, True, False, False, False]
    """
    number = len(devices) if isinstance(devices, list) else devices
    return str(number) == "1" and nodes == 1


def shutdown_process_group() -> None:
    """Destroy the process group once all processes get here: the others report an error if one just exits."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
