"""The command line: which command runs, and how it ends.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or config, 130 after Ctrl-C, 143 after SIGTERM.
"""

import logging
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper

from mnist_lit.usage import UsageError, nearest, without_password

__all__ = ["main"]

COMMANDS = ("fit", "validate", "test", "predict")
HELP = """\
usage: python train.py COMMAND [flags]

commands:
  fit        train, keep the best checkpoint by validation, test it once
  validate   the accuracy of a checkpoint on its validation images
  test       the accuracy of a checkpoint on the 10,000 test images
  predict    what a checkpoint reads in every test image, as a CSV file

examples:
  python train.py fit
  python train.py fit --config configs/blog.yaml --seed 1
  python train.py test --ckpt_path runs/baseline/version_0/checkpoints/last.ckpt

A run goes to runs/<experiment>/version_<n>/; the other commands take the best checkpoint of the newest run.
Add --traceback to see where an error comes from. All flags of a command: python train.py COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(HELP, end="")
        return 0
    if traceback := "--traceback" in arguments:
        arguments.remove("--traceback")
    name, *flags = arguments
    if name not in COMMANDS:
        return _fail(f"no command {name}{nearest(name, COMMANDS) or ': the commands are ' + ', '.join(COMMANDS)}", 2)

    from mnist_lit import commands  # now, not above: help does not wait for torch

    _prepare_output()
    try:
        getattr(commands, name)(flags)
    except BaseException as error:  # whatever it is, a person gets one line
        if isinstance(error, SystemExit) and error.code == 0:  # --help
            return 0
        if traceback:
            raise
        return _fail(*_told(error))
    return 0


def _fail(message: str, code: int) -> int:
    print(f"error: {without_password(' '.join(message.split()))}", file=sys.stderr)
    return code


def _told(error: BaseException) -> tuple[str, int]:
    """Return the line that tells an error, and the exit code."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    if isinstance(error, UsageError):
        return str(error), 2
    if isinstance(error, SIGTERMException):
        return "terminated", 143
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return "interrupted", 130  # the context: Lightning turns Ctrl-C into SystemExit
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", 1
    return str(error) or type(error).__name__, 1


def _prepare_output() -> None:
    """Show every line at once, also through a pipe, and drop what a user can do nothing about."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="replace")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Batches come from memory: workers would make it slower.
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    # Lightning 2.6 asks torch 2.14 in a way that is about to change.
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec")
