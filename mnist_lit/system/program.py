"""How this program was started and installed: what hints and errors tell people to type."""

import sys
from pathlib import Path

__all__ = ["CHECKOUT", "PROGRAM", "START", "config_names", "find_config", "install_hint"]

PACKAGE = Path(__file__).parent.parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "train.py").is_file() else None
"""The folder of the project, or None where a wheel is installed."""
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
START = (sys.executable, *((str(CHECKOUT / "train.py"),) if CHECKOUT else ("-P", "-m", "mnist_lit")))
"""The command line that starts this program again, however it was started, and in whatever folder."""


def install_hint(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install -e '.[{extra}]'" if CHECKOUT else f"pip install 'mnist-lit[{extra}]'"


def config_names() -> list[str]:
    """Return the names of the package's own config files."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def find_config(given: str) -> str:
    """Return the path of a config file: of a name such as `fast`, unless there is such a file, the package's own."""
    path = Path(given)
    shipped = CONFIGS / f"{given.removesuffix('.yaml')}.yaml"
    return str(shipped) if path.name == given and not path.is_file() and shipped.is_file() else given
