"""What a run was made by: the code, the libraries and the machine."""

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch

from mnist_lit import __version__
from mnist_lit.system.program import CHECKOUT

__all__ = ["provenance"]


def provenance(device: str) -> dict[str, str | int | None]:
    """Return what a run on a device is made by, for `results.json`; the commit is None where there is no repository."""
    libraries = {name: version(name) for name in ("torch", "torchvision", "lightning", "torchmetrics", "numpy")}
    machine: dict[str, str | int | None] = {
        "device": device,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }
    return {"mnist_lit": __version__, "commit": _commit(), **machine, "python": platform.python_version(), **libraries}


def _commit() -> str | None:
    """Return the commit of the code, with `-dirty` if it was changed since."""
    if not CHECKOUT:
        return None
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603  # git
        return found.stdout.strip()
    return None


def _processor() -> str:
    """Return the name of the processor, or of its architecture where the system does not say more."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
