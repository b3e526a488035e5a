"""The flags of the commands that take a checkpoint, without those of the model, the data and the Trainer."""

import re
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Callable, Sequence

__all__ = ["FOLDER_NAME", "add_checkpoint_flags", "parse_checkpoint_flags"]

FOLDER_NAME = r"^\w[\w.-]*\Z"


def add_checkpoint_flags(parser: ArgumentParser, command: str, folder_name: Callable[[str], str]) -> None:
    """Add the flags of a command to its parser.

    Args:
        parser: of argparse or jsonargparse.
        command: its name.
        folder_name: raises an error for a name that is not like `FOLDER_NAME`.
    """
    parser.add_argument("--experiment", type=folder_name, default=None, help="look for the newest run in runs/NAME")
    parser.add_argument("--ckpt_path", type=str, nargs="+", default=["best"], help="best, last or a checkpoint file")
    if command == "predict":
        parser.add_argument("--images", type=str, nargs="+", default=[], help="image files, or folders of them")
        parser.add_argument("--several", action="store_true", help="read every digit of each picture")
        parser.add_argument("--output", type=str, default=None, help="CSV file (predictions.csv in the run)")
        parser.add_argument("--save_seen", type=str, default=None, help="folder for the preprocessed pictures")
    if command == "export":
        formats = "FILE.onnx, .pt2, .safetensors, .html (model.onnx in the run)"
        parser.add_argument("--output", type=str, default=None, help=formats)


def parse_checkpoint_flags(command: str, argv: Sequence[str]) -> Namespace | None:
    """Return the flags, or None if there are others, or wrong ones: then the parser of all flags is needed.

    >>> parse_checkpoint_flags("test", ["--experiment=fast"])
    Namespace(experiment='fast', ckpt_path=['best'])
    >>> parse_checkpoint_flags("test", ["--trainer.precision=bf16-mixed"])
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_checkpoint_flags(parser, command, _folder_name)
    try:
        flags, others = parser.parse_known_args(argv)
    except ArgumentError:
        return None
    return None if others else flags


def _folder_name(name: str) -> str:
    if not re.match(FOLDER_NAME, name):
        raise ValueError(name)
    return name
