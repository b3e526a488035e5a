"""Without a GPU, no step of Adam looks for one with the driver's library."""

import pytest
import torch

from mnist_lit.system.libraries import GPU_CHECK, set_up_libraries


@pytest.mark.parametrize("has_gpu", [False, True])
def test_the_driver_is_asked_only_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch, *, has_gpu: bool) -> None:
    import lightning.pytorch  # noqa: F401  # sets the variable, as in a command

    monkeypatch.setenv(GPU_CHECK, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    set_up_libraries()
    assert torch.cuda._nvml_based_avail() == has_gpu  # noqa: SLF001
