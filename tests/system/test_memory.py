"""Tensors take memory that others have left."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from mnist_lit.system.memory import keep_freed_memory
import torch

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        large = torch.ones(10_000_000)  # 40 MB
        del large
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

{}
faults(10)
print(faults(10))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_what_a_step_frees_is_there_for_the_next_one() -> None:
    """Counted are pages that the system has to clear: 10 steps of 40 MB have 98,000 of them."""
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", PROGRAM.format(call)], capture_output=True, check=True).stdout)
        for call in ("keep_freed_memory()", "")
    )
    assert returned > 90_000, "or the measure is no longer needed"
    assert kept < 1_000
