"""The flags and config files of the commands."""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, suppress
from enum import Enum
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_loader, set_parsing_settings
from jsonargparse.typing import PositiveInt, restricted_number_type, restricted_string_type
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands import has_room
from mnist_lit.data import MNISTDataModule
from mnist_lit.system.errors import UsageError, explain_parser_error, suggest
from mnist_lit.system.program import CONFIGS, PROGRAM, forget_launcher, process_rank
from mnist_lit.system.signals import raise_stopped, set_handler
from mnist_lit.system.yaml_loader import flatten, load
from mnist_lit.training.loggers import LOGGER_DEFAULTS

__all__ = [
    "Parser",
    "build_data",
    "build_parser",
    "find_config",
    "find_flags",
    "flat_settings",
    "instantiate",
    "parse",
    "replace_values",
    "set_checkpoint_defaults",
]

# A config may name classes of Lightning and of this package; it imports nothing else.
set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["lightning.pytorch", "mnist_lit"])
set_loader("yaml", load, (yaml.YAMLError,))

# Some defaults of Lightning are enums, such as Timer's interval: a saved config contains their values.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, enum: dumper.represent_data(enum.value))

FolderName = restricted_string_type("FolderName", r"^(?!None\Z)\w[\w.-]*\Z")
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])  # NumPy's range
Seeds = restricted_number_type("Seeds", int, [(">=", 1), ("<=", 1_000)])
GROUPS = ("model", "data", "trainer")
TRAINER_DEFAULTS = {
    "trainer.max_epochs": 15,
    "trainer.devices": 1,  # more do not train this network faster
    "trainer.enable_model_summary": False,  # the shapes of the layers are printed instead
}
FROM_DATASET = {"shape", "classes"}
"""Settings of the model that follow from the data set, instead of flags."""
ONLY_IN_CONFIGS = ("seed", "seeds", "select", "init_from")
"""Flags of fit that other commands accept in a run's config.yaml, and nowhere else."""
BATCH_LIMITS = {f"trainer.limit_{stage}_batches": stage for stage in ("train", "val", "test", "predict")}


class Parser(ArgumentParser):
    """A parser that gives loggers the defaults of a run, and reads config files as UTF-8 on every system.

    jsonargparse parses the arguments of a nested class with a parser of the same type.
    """

    only_in_configs: Sequence[str] = ()
    """Names of flags that only config files may have."""

    def add_class_arguments(self, theclass: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the arguments of a class, as jsonargparse does."""
        added = super().add_class_arguments(theclass, *args, **kwargs)
        self.set_defaults(LOGGER_DEFAULTS.get(theclass, {}))
        return added

    def parse_path(self, path: str, **kwargs: Any) -> Namespace:
        """Parse a config file in UTF-8; jsonargparse would use the encoding of the system.

        Raises:
            UsageError: if it is not UTF-8.
        """
        try:
            content = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not a text in UTF-8: save it as such") from error
        with chdir(Path(path).parent):  # paths in a config file are relative to its folder
            parsed: Namespace = self.parse_string(content, path, **kwargs)
        return parsed


def build_parser(command: str) -> Parser:
    """Return the parser of a command."""
    parser = Parser(
        prog=f"{PROGRAM} {command}",
        usage=f"{PROGRAM} {command} [flags]",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file with any of these flags")
    if command in {"fit", "search"}:
        _add_training_flags(parser, command)
    else:
        _add_checkpoint_flags(parser, command)
        parser.only_in_configs = ONLY_IN_CONFIGS
        for name in ONLY_IN_CONFIGS:
            parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_class_arguments(DigitClassifier, "model", instantiate=False, skip=FROM_DATASET)
    parser.add_class_arguments(MNISTDataModule, "data", instantiate=False)
    # The root directory is the run's folder, the data module has its own sampler, and the limits are added below.
    skipped = {"default_root_dir", "use_distributed_sampler", *(name.removeprefix("trainer.") for name in BATCH_LIMITS)}
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, skip=skipped, fail_untyped=False)
    for name, stage in BATCH_LIMITS.items():
        # 1 is one batch and 1.0 all of them, so int must be tried first. Lightning's Optional[Union[int, float]] may be
        # float first, since typing caches the equal Optional[Union[float, int]] of other modules; `|` caches nothing.
        kind = f"number (int) or fraction (float) of {stage} batches"
        parser.add_argument(f"--{name}", type=int | float | None, help=kind)
    parser.set_defaults(TRAINER_DEFAULTS)
    return parser


def _add_training_flags(parser: ArgumentParser, command: str) -> None:
    parser.add_argument("--experiment", type=FolderName, default="baseline", help="runs go to runs/NAME/version_<n>")
    if command == "search":
        parser.add_argument("--trials", type=PositiveInt, default=20, help="total number of trials of the study")
        parser.add_argument("--space", type=dict[str, Any], default={}, help="the search space (see --config search)")
    else:
        seeds = "runs, with seeds seed, seed + 1, …" if has_room("studies") else argparse.SUPPRESS
        parser.add_argument("--seeds", type=Seeds | None, default=None, help=seeds)
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="the checkpoint to resume")
        parser.add_argument("--init_from", type=str | None, default=None, help="a checkpoint to take weights from")
    parser.add_argument("--seed", type=Seed, default=777, help="seed of the initial weights and all random numbers")
    parser.add_argument(
        "--select",
        type=Literal["best_epoch", "last_epoch"],
        default="best_epoch",
        help="best.ckpt is the epoch with the best validation accuracy, or the last one that was validated",
    )


def _add_checkpoint_flags(parser: ArgumentParser, command: str) -> None:
    parser.add_argument("--experiment", type=FolderName | None, default=None, help="the newest run in runs/NAME")
    parser.add_argument("--ckpt_path", type=str | None, default="best", help="best, last or a checkpoint file")
    if command == "predict":
        parser.add_argument("--images", type=str, nargs="+", default=[], help="image files, or folders of them")
        several = "read every digit of each picture" if has_room("reader") else argparse.SUPPRESS
        parser.add_argument("--several", action="store_true", help=several)
        parser.add_argument("--output", type=str, default=None, help="CSV file (predictions.csv in the run)")
        parser.add_argument("--save_seen", type=str, default=None, help="folder for the preprocessed pictures")
    if command == "export":
        parser.add_argument("--output", type=str, default=None, help="FILE.onnx, .pt2, … (model.onnx in the run)")


def find_flags(argv: Sequence[str], *names: str) -> dict[str, str]:
    """Return the values of a few flags where they are given, in config files too.

    They tell which run or checkpoint a command is about: its settings are the defaults of all other flags.

    Raises:
        UsageError: if a value is missing.
    """
    try:
        given, _ = _split(argv, *names)
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from error
    found: dict[str, Any] = {}
    for config in given.pop("config"):
        with suppress(UsageError, OSError, ValueError, AttributeError, yaml.YAMLError):  # `parse` reports it
            content = flatten(load(Path(find_config(config)).read_text(encoding="utf-8")))
            found |= {name: content[name] for name in names if name in content}
    found |= {name: value for name, value in given.items() if value is not None}
    # `parse` reports values of other types.
    return {name: str(value) for name, value in found.items() if type(value) in {str, int} and value != "null"}


def _split(argv: Sequence[str], *names: str) -> tuple[dict[str, Any], list[str]]:
    """Return the values of `config`, a list, and of some other flags, None where they are not given, and the rest.

    Raises:
        argparse.ArgumentError: if a value is missing.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append", default=[])
    for name in names:
        parser.add_argument(f"--{name}")
    given, rest = parser.parse_known_args(argv)
    return vars(given), rest


def parse(parser: Parser, argv: Sequence[str]) -> Namespace:
    """Parse a command's flags. Those in config files come first, wherever `--config` stands: flags win over all.

    Raises:
        UsageError: naming the flag or key, its value, and the most similar flag if it is misspelt.
    """
    configs: list[str] = []
    try:
        given, flags = _split(argv)
        for name in parser.only_in_configs:
            if any(flag.partition("=")[0] == f"--{name}" for flag in flags):
                raise UsageError(f"no flag --{name} of this command: only fit has it")
        configs = [find_config(name) for name in given["config"]]
        config: Namespace = parser.parse_args([*(f"--config={path}" for path in configs), *flags])
    except (ArgumentError, argparse.ArgumentError) as error:
        raise UsageError(_explain(error, configs, parser)) from error
    except (ValueError, AttributeError) as error:  # of binary files, invalid paths and YAML tags
        raise UsageError(f"{' or '.join(configs or argv)}: {error}") from error
    for group in GROUPS:
        if not isinstance(config[group], Namespace):
            raise UsageError(f"{' or '.join(configs)}: {group}: expected a group of settings")
    _settle_processes(config)
    return config


def _settle_processes(config: Namespace) -> None:
    """Forget a cluster's launcher if one process is asked for; of several processes, let only the first one print."""
    if str(config.trainer.devices) == "1" and config.trainer.num_nodes == 1:
        if forget_launcher():
            rank_zero_only.rank = 0  # type: ignore[attr-defined]  # Lightning has taken it from the environment
            set_handler(raise_stopped)
    elif process_rank() > 0:
        sys.stdout = StringIO()


def find_config(name: str) -> str:
    """Return the path of a config file; where there is no file of this name, such as `fast`, the package's own.

    Raises:
        UsageError: if there is none.
    """
    shipped = {path.stem: str(path) for path in sorted(CONFIGS.glob("*.yaml"))}
    if Path(name).is_file():
        return name
    if Path(name).name == name and (stem := name.removesuffix(".yaml")) in shipped:
        return shipped[stem]
    hint = suggest(Path(name).stem, shipped) or f", and no config of that name: {', '.join(shipped)}"
    raise UsageError(f"--config: no file {name}{hint}")


def set_checkpoint_defaults(parser: ArgumentParser, settings: Mapping[str, Mapping[str, Any]], source: Path) -> None:
    """Make the settings of a checkpoint, by group, the defaults: flags and config files win over them.

    Those that follow from the data set are not among them.

    Raises:
        ValueError: naming a setting that this version does not have, or whose value is of another type.
    """
    flags = {
        group: {name: value for name, value in values.items() if group != "model" or name not in FROM_DATASET}
        for group, values in settings.items()
    }
    try:
        parser.parse_object(flags)
    except ArgumentError as error:
        reason = _explain(error, ["its settings"], parser)
        raise ValueError(f"{source} cannot be used: {reason}") from error
    parser.set_defaults({f"{group}.{name}": value for group in flags for name, value in flags[group].items()})


def flat_settings(parser: ArgumentParser, config: Namespace) -> dict[str, Any]:
    """Return the settings by their full names, as a saved `config.yaml` has them."""
    return flatten(load(parser.dump(config, skip_unset=False)))


def replace_values(parser: ArgumentParser, config: Namespace, values: Mapping[str, Any]) -> Namespace:
    """Return a copy of `config` with other values of some flags.

    Raises:
        UsageError: if a value is of another type than the flag's.
    """
    changed = config.clone()
    for name, value in values.items():
        changed[name] = value
    try:
        checked: Namespace = parser.parse_object(changed)
    except ArgumentError as error:
        raise UsageError(_explain(error, ["the space"], parser)) from error
    return checked


def _explain(error: Exception, configs: Sequence[str], parser: ArgumentParser) -> str:
    message = explain_parser_error(str(error), configs, known=parser.get_defaults().keys())
    if unknown := re.search(rf"no (flag|setting) \S*model\.({'|'.join(FROM_DATASET)})\b", message):
        return f"{message[: unknown.end()]}: it follows from --data.dataset"
    if re.search(r"no (flag|setting) \S*model\.\w+$", message):
        return f"{message}: neither the network in model.py nor DigitClassifier has it"
    return message


def instantiate(parser: ArgumentParser, config: Namespace, images: Mapping[str, Any] | None = None) -> Namespace:
    """Return `config` with instances of the model, the data module and the classes that the Trainer is given.

    Each logger is a `functools.partial`, since the run folder does not exist yet (see `build_loggers`). With the
    `shape` of the images and the number of `classes`, only the model is instantiated, and no data module.

    Raises:
        UsageError: if a value is out of range, or needs a package that is not installed.
    """
    with _usage_errors():
        built: Namespace = parser.instantiate(config, instantiators=[(_postpone, Logger, True)])
    if images is None:
        built.data = build_data(built.data)
        images = {"shape": list(built.data.dataset.shape), "classes": len(built.data.dataset.classes)}
    try:
        with _usage_errors():
            built.model = DigitClassifier(**vars(built.model), **images)
    except (RuntimeError, OverflowError, MemoryError) as error:
        raise UsageError("--model: torch cannot build this network, it is too large") from error
    return built


def build_data(settings: Namespace) -> MNISTDataModule:
    """Return the data module of these settings.

    Raises:
        UsageError: if a value is out of range, or there is no such data set.
    """
    with _usage_errors():
        return MNISTDataModule(**vars(settings))


@contextmanager
def _usage_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UsageError(explain_parser_error(str(error), [], known=())) from error


def _postpone(kind: type, **arguments: Any) -> Any:
    return partial(kind, **arguments)
