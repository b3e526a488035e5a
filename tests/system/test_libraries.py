"""Adam does not look for a missing driver, freed memory is used again, and a busy machine is told."""

import os
import subprocess
import sys

import pytest
import torch

from mnist_lit.system.libraries import GPU_CHECK, describe_load, set_up_libraries

PROGRAM = """
import resource
from mnist_lit.system.libraries import keep_freed_memory
import torch

def page_faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        large = torch.ones(10_000_000)  # 40 MB
        del large
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(page_faults(10))
keep_freed_memory()
page_faults(10)
print(page_faults(10))
"""


@pytest.mark.parametrize("has_gpu", [False, True])
def test_the_driver_is_asked_only_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch, *, has_gpu: bool) -> None:
    import lightning.pytorch  # noqa: F401  # sets the variable, as in a command

    monkeypatch.setenv(GPU_CHECK, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    set_up_libraries()
    assert torch.cuda._nvml_based_avail() == has_gpu  # noqa: SLF001


def test_a_busy_machine_is_told_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (3.14, 0.0, 0.0), raising=False)
    line = "load 3.1 on 2 cores in the last minute: if other programs cause it, OMP_WAIT_POLICY=passive"
    assert describe_load() == f"{line} in the environment helps"
    with monkeypatch.context() as patch:
        patch.setattr(os, "getloadavg", lambda: (2.2, 9.0, 9.0))
        assert describe_load() is None, "a run that has just ended is no other program"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1)
        assert describe_load() is None, "a single thread does not wait"
    with monkeypatch.context() as patch:
        patch.delattr(os, "getloadavg")
        assert describe_load() is None, "Windows does not say"
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert describe_load() is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_causes_no_page_faults() -> None:
    """10 steps of 40 MB have 98,000 pages."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    returned, kept = map(int, done.stdout.split())
    assert returned > 90_000, "else keep_freed_memory is no longer needed"
    assert kept < 1_000
