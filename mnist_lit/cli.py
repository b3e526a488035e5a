"""The command line: runs a command and returns its exit code.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or config, 130 after Ctrl-C, 143 after SIGTERM.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from itertools import pairwise
from signal import SIG_IGN
from time import sleep

from mnist_lit import __version__
from mnist_lit.commands import COMMANDS, HELP, describe_flags
from mnist_lit.system.errors import UsageError, printable, suggest
from mnist_lit.system.files import expand_home
from mnist_lit.system.libraries import keep_freed_memory, set_up_libraries
from mnist_lit.system.output import outlive_readers, set_up_logs
from mnist_lit.system.program import CHECKOUT, is_child_process
from mnist_lit.system.signals import Stopped, exit_at_once, follow_parent, handle_signals, raise_stopped, set_handler

__all__ = ["main"]

MAX_MESSAGE = 2_000
"""Characters: an error may quote input of any length."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Without `argv`, the arguments are those of the process, and signals stay ignored after the command: Ctrl-C while
    Python shuts down does not change the exit code. With `argv`, the previous handlers are restored.
    """
    if argv is None:
        outlive_readers()
        set_handler(exit_at_once)
        if is_child_process():
            follow_parent()
        return _run(sys.argv[1:])
    with handle_signals(raise_stopped):
        return _run(argv)


def _run(given: Sequence[str]) -> int:
    arguments = [expand_home(argument) for argument in given if argument != "--traceback"]
    try:
        _dispatch(arguments)
        set_handler(SIG_IGN)
    except BaseException as raised:  # any error is reported in one line
        set_handler(SIG_IGN)
        error = _cause(raised)
        if isinstance(error, SystemExit) and error.code == 0:  # --help
            return 0
        if is_child_process():
            sleep(5)  # if the parent process fails too, this one follows it meanwhile, without a message
        if "--traceback" in given:
            raise
        if isinstance(error, Stopped):
            print(error, file=sys.stderr)
            return error.exit_code
        message, code = _describe(error)
        line = printable(" ".join(message.split()))
        print(f"error: {line if len(line) <= MAX_MESSAGE else f'{line[:MAX_MESSAGE]} …'}", file=sys.stderr)
        return code
    return 0


def _cause(error: BaseException) -> BaseException:
    """Return the `Stopped` that led to an error, if one did, else the error."""
    earlier: BaseException | None = error
    while earlier and not isinstance(earlier, Stopped):
        earlier = earlier.__context__
    return earlier or error


def _dispatch(arguments: Sequence[str]) -> None:
    if isinstance(sys.stdout, TextIOWrapper):  # flush each line, even in a pipe; replace what the output cannot have
        sys.stdout.reconfigure(line_buffering=True, errors="replace")
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(HELP, end="")
        return
    name, *flags = arguments
    if name == "--version":
        print(f"mnist-lit {__version__}")
        return
    if name not in COMMANDS:
        raise UsageError(f"no command {name}{suggest(name, COMMANDS) or ': the commands are ' + ', '.join(COMMANDS)}")
    if {"-h", "--help", "--help=all"} & {*flags}:
        asks_all = "--help=all" in flags or {("-h", "all"), ("--help", "all")} & {*pairwise(flags)}
        if name == "compare" or not asks_all:  # compare has few flags
            print(describe_flags(name), end="")
            return
        flags = ["--help"]
    keep_freed_memory()
    module = import_module(f"mnist_lit.{COMMANDS[name]}")  # here, so that help does not import torch
    set_up_libraries()
    set_up_logs()
    set_handler(raise_stopped)
    getattr(module, name)(flags)


def _describe(error: BaseException) -> tuple[str, int]:
    """Return the message and the exit code of an error."""
    if isinstance(error, UsageError):
        return str(error), 2
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", 1
    if isinstance(error, ModuleNotFoundError) and error.name:  # not Lightning's own, which says what to install
        return f"{error}: install what this program needs with pip install {'-e .' if CHECKOUT else 'mnist-lit'}", 1
    return str(error) or type(error).__name__, 1
