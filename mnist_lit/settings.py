"""The flags and config files of a command."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace
from jsonargparse.typing import restricted_number_type, restricted_string_type
from lightning.pytorch import Trainer

from mnist_lit.classifier import DigitClassifier
from mnist_lit.data import MNISTDataModule
from mnist_lit.usage import UsageError, told

__all__ = ["build_parser", "instantiate", "parse", "take_defaults"]

Name = restricted_string_type("Name", r"^\w[\w.-]*$")  # of a folder, not a path
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])  # what numpy takes
TRAINER_DEFAULTS = {
    "trainer.max_epochs": 15,
    "trainer.enable_model_summary": False,  # the shapes are printed instead
}
COMMON = """\
  --data.batch_size N      images in a batch (100)
  --data.data_dir DIR      where the data files are kept (data)
  --trainer.accelerator A  cpu, gpu, mps … (the best there is)
"""
SHORT_HELP = {
    "fit": f"""\
The flags that people change:
  --config FILE            a config file with any of the flags below; repeatable, later ones win, flags win over all
  --experiment NAME        the run goes to runs/NAME/version_<n> (baseline)
  --seed N                 of the initial weights and the training order (777)
  --model.channels LIST    filters of each convolution block ([32,64])
  --model.learning_rate X  Adam's (0.001)
  --data.val_size N        images held out for validation (5000)
  --trainer.max_epochs N   (15)
{COMMON}
""",
    "evaluate": f"""\
The flags that people change:
  --ckpt_path WHICH        best, last or a checkpoint file (best); model and data settings come from it
  --experiment NAME        look for the newest run in runs/NAME only
{COMMON}
""",
}


class HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keep the lines of the short help as they are."""


def build_parser(command: str) -> ArgumentParser:
    """Return the parser of `fit`, `validate`, `test` or `predict`."""
    fit = command == "fit"
    parser = ArgumentParser(
        prog=f"python train.py {command}",
        usage=f"python train.py {command} [flags]",
        description=SHORT_HELP["fit" if fit else "evaluate"] + "All flags:",
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file with any of these flags")
    if fit:
        parser.add_argument("--experiment", type=Name, default="baseline", help="the run goes to runs/NAME/version_<n>")
        parser.add_argument("--seed", "--seed_everything", type=Seed, default=777, help="of weights and order")
    else:
        parser.add_argument("--experiment", type=Name, default=None, help="look for the newest run in runs/NAME")
        parser.add_argument("--ckpt_path", type=str, default="best", help="best, last or a checkpoint file")
    if command == "predict":
        parser.add_argument("--output", type=str | None, default=None, help="CSV file (predictions.csv in the run)")
    parser.add_class_arguments(DigitClassifier, "model")
    parser.add_class_arguments(MNISTDataModule, "data")
    # The run folder is the root directory.
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, skip={"default_root_dir"}, fail_untyped=False)
    parser.set_defaults(TRAINER_DEFAULTS)
    return parser


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parse a command's flags. Those in config files come first, wherever `--config` stands: flags win over all.

    Raises:
        UsageError: naming the flag or key, its value, and the nearest flag where it is misspelt.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", action="append", default=[])
    configs: list[str] = []
    try:
        given, flags = first.parse_known_args(argv)
        configs = given.config
        config: Namespace = parser.parse_args([*(f"--config={path}" for path in configs), *flags])
    except (ArgumentError, argparse.ArgumentError) as error:
        raise UsageError(told(str(error), configs, known=parser.get_defaults().keys())) from error
    return config


def take_defaults(parser: ArgumentParser, defaults: dict[str, Any], source: Path) -> None:
    """Let the settings of a checkpoint be the defaults, which flags and config files win over.

    Raises:
        ValueError: naming a setting that this version does not have.
    """
    for key, value in defaults.items():
        try:
            parser.set_defaults({key: value})
        except KeyError as error:
            raise ValueError(f"{source} has a setting that this version does not know: {key}") from error


def instantiate(parser: ArgumentParser, config: Namespace) -> Namespace:
    """Return `config` with the model, the data module and what the Trainer is given built.

    Raises:
        UsageError: if a value is out of range.
    """
    try:
        built: Namespace = parser.instantiate(config)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    return built
