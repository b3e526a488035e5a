"""One run in several processes: which of them this is, and what only the first one does."""

import os

from lightning.pytorch.utilities import rank_zero_only
from torch import distributed

__all__ = ["process_rank", "rank_zero_only", "rank_zero_print", "shutdown_process_group"]

rank_zero_print = rank_zero_only(print)
"""Print, in the first process only."""


def process_rank() -> int:
    """Return the rank that whoever started this process has given it: Lightning, torchrun or SLURM; 0 if nobody."""
    return int(next((os.environ[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), 0))


def shutdown_process_group() -> None:
    """End the connection between the processes when all have come so far: one that just ends alarms the others."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
