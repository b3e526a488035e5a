"""A script for a shell that completes commands and flags."""

from argparse import ArgumentParser
from collections.abc import Sequence

from mnist_lit.commands import COMMANDS, DESCRIPTIONS
from mnist_lit.commands.compare import FLAGS
from mnist_lit.commands.settings import build_parser
from mnist_lit.system.errors import UsageError

__all__ = ["format_completion"]

FILES = {"config", "ckpt_path", "data.data_dir", "data.dataset", "images", "init_from", "output", "save_seen"}
"""Flags whose values are names of files or folders."""
LISTS = {"ckpt_path", "images"}


def format_completion(argv: Sequence[str]) -> str:
    """Return the script for the shell that is named, with which `mnist-lit` is completed.

    jsonargparse can print one too, but it would have the flags of each class that a Trainer may be given, recursively.

    Raises:
        UsageError: if there is no such shell, or shtab is not installed.
    """
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise UsageError("--print_completion needs shtab: pip install shtab") from error
    shells = shtab.SUPPORTED_SHELLS
    if len(argv) != 1 or argv[0] not in shells:
        raise UsageError(f"--print_completion: give one of {', '.join(shells)}")
    parser = ArgumentParser("mnist-lit")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--print_completion", choices=shells)
    commands = parser.add_subparsers()
    for name in COMMANDS:
        command = commands.add_parser(name, help=DESCRIPTIONS[name])
        command.add_argument("--traceback", action="store_true")
        for flag in _flags(name):
            action = command.add_argument(f"--{flag}", nargs="+" if flag in LISTS else None)
            if flag in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # as shtab is told
        if name == "compare":
            command.add_argument("recipes", nargs="+").complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, argv[0])
    return script


def _flags(command: str) -> list[str]:
    if command == "compare":
        return [*FLAGS]
    parser = build_parser(command)
    return [name for name in parser.get_defaults().keys() if name not in parser.only_in_configs]  # noqa: SIM118
