"""A script for a shell that completes commands and flags."""

from argparse import ArgumentParser
from collections.abc import Sequence

from mnist_lit.commands import COMMANDS
from mnist_lit.commands.compare import FLAGS
from mnist_lit.commands.settings import build_parser
from mnist_lit.system.errors import UsageError
from mnist_lit.system.program import install_hint

__all__ = ["format_completion"]

FILES = {"config", "ckpt_path", "data.data_dir", "data.dataset", "images", "init_from", "output", "save_seen"}
"""Flags whose values are names of files or folders."""


def format_completion(argv: Sequence[str]) -> str:
    """Return the script for the shell that is named, with which `mnist-lit` is completed.

    jsonargparse can print one too, but it would have the flags of each class that a Trainer may be given, recursively.

    Raises:
        UsageError: if there is no such shell, or shtab is not installed.
    """
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise UsageError(f"completion needs shtab: {install_hint('completion')}") from error
    if len(argv) != 1 or argv[0] not in shtab.SUPPORTED_SHELLS:
        raise UsageError(f"--print_completion: give one of {', '.join(shtab.SUPPORTED_SHELLS)}")
    parser = ArgumentParser("mnist-lit")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    for name in COMMANDS:
        command = commands.add_parser(name, help=name)  # shtab ignores those without help
        command.add_argument("paths", nargs="*").complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's way
        for flag in FLAGS if name == "compare" else build_parser(name).get_defaults().keys():
            action = command.add_argument(f"--{flag}")
            if flag in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, argv[0])
    return script
