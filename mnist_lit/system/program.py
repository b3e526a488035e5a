"""How this program was started and installed: what hints and errors tell people to type."""

import os
import sys
from pathlib import Path

__all__ = [
    "CHECKOUT",
    "CONFIGS",
    "PACKAGE",
    "PROGRAM",
    "forget_launcher",
    "install_hint",
    "is_child_process",
    "process_rank",
]

PACKAGE = Path(__file__).parent.parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "train.py").is_file() else None
"""The folder of the project, or None where a wheel is installed."""
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "JSM_NAMESPACE_RANK")
CONFIGS = CHECKOUT / "configs" if CHECKOUT else PACKAGE / "configs"


def _program(argv0: str) -> str:
    """Return the command that has started this program.

    >>> [_program(argv0) for argv0 in ("train.py", "/usr/bin/mnist-lit", "/lib/mnist_lit/__main__.py")]
    ['python train.py', 'mnist-lit', 'python -m mnist_lit']
    """
    path = Path(argv0)
    if path.stem == "mnist-lit":
        return "mnist-lit"
    if path.parts[-2:] == ("mnist_lit", "__main__.py"):
        return "python -m mnist_lit"
    return f"python {argv0 or 'train.py'}"


PROGRAM = _program(sys.argv[0] if sys.argv else "")


def process_rank() -> int:
    """Return the rank set by the launcher (Lightning, torchrun or SLURM), 0 without one.

    Lightning itself sets the ranks of the machine and of the process in it: then it is the larger one of the two.
    """
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return max(int(os.environ.get(name, "0")) for name in names)


def is_child_process() -> bool:
    """Return whether a launcher has started this process beside the first one of this machine."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and "MASTER_PORT" in os.environ


def forget_launcher() -> bool:
    """Remove what a launcher has set for several processes from the environment, and return whether there was any.

    A run of one process would otherwise take the number of a cluster's task for its rank, and save nothing.
    """
    found = [name for name in os.environ if name in RANKS or name.startswith(("SLURM_", "TORCHELASTIC_"))]
    for name in found:
        del os.environ[name]
    return bool(found)


def install_hint(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install -e '.[{extra}]'" if CHECKOUT else f"pip install 'mnist-lit[{extra}]'"
