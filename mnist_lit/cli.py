"""The command line: which command runs, and how it ends.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or config, 130 after Ctrl-C, 143 after SIGTERM.
"""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from signal import SIG_IGN
from time import sleep

from mnist_lit.system.errors import UsageError, printable, suggest
from mnist_lit.system.memory import keep_freed_memory
from mnist_lit.system.signals import (
    Stopped,
    exit_at_once,
    handle_signals,
    is_child_process,
    raise_stopped,
    set_handler,
    watch_parent,
)

__all__ = ["main"]

COMMANDS = {
    "fit": "fit",
    "validate": "evaluate",
    "test": "evaluate",
    "predict": "predict",
    "export": "export",
    "search": "search",
}
"""Each with its module."""
LONGEST = 2_000
"""Letters of an error: it may quote what was given, however long that is."""
HELP = """\
usage: python train.py COMMAND [flags]

commands:
  fit        train, keep the best checkpoint by validation, test it once
  validate   the accuracy of a checkpoint on its validation images
  test       the accuracy of a checkpoint on the 10,000 test images
  predict    what a checkpoint reads in your own pictures of digits, or in every test image
  export     a checkpoint as ONNX or torch.export program
  search     try hyperparameters, each trial an ordinary run

examples:
  python train.py fit
  python train.py fit --config configs/blog.yaml --seed 1
  python train.py test --ckpt_path runs/baseline/version_0/checkpoints/last.ckpt
  python train.py predict --images photo.jpg scans/

A run goes to runs/<experiment>/version_<n>/; the other commands take the best checkpoint of the newest run.
Add --traceback to see where an error comes from. All flags of a command: python train.py COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Without `argv` it is the program: once the result is known, Ctrl-C and SIGTERM no longer change the exit code, also
    while Python shuts down. With `argv` the handlers of signals are afterwards as before.
    """
    if argv is None:
        set_handler(exit_at_once)
        if is_child_process():
            watch_parent()
        return _run(sys.argv[1:])
    with handle_signals(raise_stopped):
        return _run(argv)


def _run(given: Sequence[str]) -> int:
    arguments = [argument for argument in given if argument != "--traceback"]
    try:
        _dispatch(arguments)
        set_handler(SIG_IGN)
    except BaseException as raised:  # whatever it is, a person gets one line
        set_handler(SIG_IGN)
        error = _cause(raised)
        if isinstance(error, SystemExit) and error.code == 0:  # --help
            return 0
        if isinstance(error, Stopped) and int(os.environ.get("LOCAL_RANK", "0")) > 0:
            return 0  # the first process tells it; a failure here would have Lightning kill that one
        if is_child_process():
            sleep(10)  # where the first process fails too, or has ended, this one ends now, without a word
        if "--traceback" in given:
            raise
        return _fail(*_describe(error))
    return 0


def _cause(error: BaseException) -> BaseException:
    """Return the `Stopped` that led to an error, if one did, else the error."""
    earlier: BaseException | None = error
    while earlier and not isinstance(earlier, Stopped):
        earlier = earlier.__context__
    return earlier or error


def _dispatch(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(HELP, end="")
        return
    name, *flags = arguments
    if name not in COMMANDS:
        raise UsageError(f"no command {name}{suggest(name, COMMANDS) or ': the commands are ' + ', '.join(COMMANDS)}")
    keep_freed_memory()
    run = getattr(import_module(f"mnist_lit.commands.{COMMANDS[name]}"), name)  # now: help does not wait for torch
    _prepare_output()
    set_handler(raise_stopped)
    run(flags)


def _fail(message: str, code: int) -> int:
    from mnist_lit.datasets.mirrors import redact_credentials

    line = printable(redact_credentials(" ".join(message.split())))
    print(f"error: {line if len(line) <= LONGEST else f'{line[:LONGEST]} …'}", file=sys.stderr)
    return code


def _describe(error: BaseException) -> tuple[str, int]:
    """Return the line that a person gets for an error, and the exit code."""
    if isinstance(error, Stopped):
        return str(error), error.exit_code
    if isinstance(error, UsageError):
        return str(error), 2
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", 1
    if isinstance(error, ModuleNotFoundError):
        return f"{error}: install what this program needs with pip install -e .", 1
    return str(error) or type(error).__name__, 1


def _prepare_output() -> None:
    """Show every line at once, also through a pipe, and drop what a user can do nothing about."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="replace")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # a profiler's table is asked for
    # Batches come from memory: workers would make it slower.
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    # Lightning 2.6 asks torch 2.14 in a way that is about to change.
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec")
    # An epoch of few batches logs the learning rate at its end like any other.
    warnings.filterwarnings("ignore", message=".*is smaller than the logging interval")
    # A run that is resumed has its checkpoints there.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # An epoch that is resumed at its very end has its counts from the checkpoint.
    warnings.filterwarnings("ignore", message=".*``compute`` method of metric")
    # A training that ends before its first validation: `fit` says so.
    warnings.filterwarnings("ignore", message=".*could not find the monitored key")
    # A trial (`fast_dev_run`) of a training on all images.
    warnings.filterwarnings("ignore", message=r"Total length of `DataLoader` across ranks is zero")
