"""Freed memory is reused by the next training step."""

import os
import subprocess
import sys

import pytest
from conftest import posix

from mnist_lit.system.memory import total_memory

PROGRAM = """
import resource
from mnist_lit.system.memory import keep_freed_memory
import torch

def page_faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        large = torch.ones(10_000_000)  # 40 MB
        del large
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

{}
page_faults(10)
print(page_faults(10))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_causes_no_page_faults() -> None:
    """10 steps of 40 MB have 98,000 pages."""
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", PROGRAM.format(call)], capture_output=True, check=True).stdout)
        for call in ("keep_freed_memory()", "")
    )
    assert returned > 90_000, "else keep_freed_memory is no longer needed"
    assert kept < 1_000


def test_total_memory_is_plausible() -> None:
    assert 1e9 < (total_memory() or 0) < 1e14


@posix
def test_total_memory_is_none_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", refuse)
    assert total_memory() is None
