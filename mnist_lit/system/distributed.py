"""Distributed training: the rank of this process, printing on rank 0, and shutdown."""

import os

from lightning.pytorch.utilities import rank_zero_only
from torch import distributed

__all__ = ["process_rank", "rank_zero_only", "rank_zero_print", "shutdown_process_group"]

rank_zero_print = rank_zero_only(print)


def process_rank() -> int:
    """Return the rank set by the launcher (Lightning, torchrun or SLURM), 0 without one."""
    return int(next((os.environ[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), 0))


def shutdown_process_group() -> None:
    """Destroy the process group once all processes get here: the others report an error if one just exits."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
