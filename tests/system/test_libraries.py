"""Without a GPU, no step of Adam looks for one with the driver's library, and freed memory is used again."""

import subprocess
import sys

import pytest
import torch

from mnist_lit.system.libraries import GPU_CHECK, set_up_libraries

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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_causes_no_page_faults() -> None:
    """10 steps of 40 MB have 98,000 pages."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    returned, kept = map(int, done.stdout.split())
    assert returned > 90_000, "else keep_freed_memory is no longer needed"
    assert kept < 1_000
