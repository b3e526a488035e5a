"""Where a training starts: at the beginning, with the weights of a checkpoint, or where a run is resumed."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands.settings import Parser, build_parser, parse, set_checkpoint_defaults
from mnist_lit.datasets.catalog import DATASETS
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run, find_resumable
from mnist_lit.system.distributed import rank_zero_print
from mnist_lit.system.errors import UsageError

__all__ = ["LIMITS", "NOT_OF_THE_EXPERIMENT", "Start", "changed_settings", "find_run", "new_start", "resume_run"]

LENGTH = ("trainer.max_epochs", "trainer.max_steps")
LIMITS = (*LENGTH, "trainer.max_time", "trainer.min_epochs", "trainer.min_steps")
CHANGEABLE = (
    *LIMITS,
    "processes",
    "save_every",
    "data.data_dir",
    "data.mirrors",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.logger",
    "trainer.profiler",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)
"""Settings that may change when a run is resumed, since they do not change the experiment."""
NOT_OF_THE_EXPERIMENT = frozenset({"config", *CHANGEABLE} - {*LIMITS})
"""Settings in which runs of one experiment may differ."""


@dataclass(frozen=True)
class Start:
    """Where a training starts: at the beginning of a new run or, with `run`, in an unfinished one."""

    parser: Parser
    config: Namespace
    run: Run | None = None
    resumed: Checkpoint | None = None
    """None if the run was interrupted before its first checkpoint."""
    initial: Checkpoint | None = None
    """The checkpoint of `--init_from`."""


def find_run(parser: Parser, config: Namespace, argv: Sequence[str]) -> tuple[Run, Path | None]:
    """Return the run that `--ckpt_path` resumes, and its checkpoint (see `find_resumable`).

    Args:
        parser: of `fit`.
        config: what it has parsed, with a `ckpt_path`.
        argv: the flags.

    Raises:
        UsageError: if a flag is wrong.
        OSError, ValueError: if there is nothing to resume.
    """
    if config.init_from is not None:
        raise UsageError("--init_from starts a new run, --ckpt_path resumes one: give one of them")
    parser.set_defaults({"experiment": None})  # a run of any experiment, unless one is named
    return find_resumable(config.ckpt_path, parse(parser, argv).experiment)


def resume_run(run: Run, path: Path | None, argv: Sequence[str]) -> Start | None:
    """Return where to resume a run, or None, with a message, if it is finished.

    Args:
        run: to resume.
        path: its checkpoint, None if it was interrupted before the first one.
        argv: flags that win over the run's settings.

    Raises:
        UsageError: if a flag is wrong, would change the experiment, or asks for more steps than its schedule has.
        OSError, ValueError: if its checkpoint cannot be read (see `Checkpoint.read_newest`).
    """
    parser = build_parser("fit")
    saved, config = (parse(parser, [f"--config={run.config}", *flags]) for flags in ((), argv))
    changed = changed_settings(run, saved, config)
    if changed & set(LENGTH) and config.model.schedule != "constant":
        raise UsageError(f"the schedule of {run.folder} has a fixed number of steps: start a new run to train longer")
    longer = bool(changed & set(LIMITS))
    if "fit" in run.results() and not longer:
        rank_zero_print(f"{run.folder} is finished: give more --trainer.max_epochs to train it longer")
        return None
    if path is None:
        rank_zero_print(f"{run.folder} was interrupted before its first checkpoint: it starts again")
        return Start(parser, config, run, initial=_initial(config))
    resumed = Checkpoint.read_newest(path)
    if longer:
        _check_limits(config, resumed)
    rank_zero_print(f"resuming {resumed.path}")
    return Start(parser, config, run, resumed)


def new_start(parser: Parser, config: Namespace, argv: Sequence[str]) -> Start:
    """Return the start of a new run; with `--init_from`, the network is the checkpoint's, and flags win over it."""
    if initial := _initial(config):
        others = signature(DigitClassifier).parameters
        network = {name: value for name, value in initial.settings["model"].items() if name not in others}
        set_checkpoint_defaults(parser, {"model": network}, initial.path)
        config = parse(parser, argv)
    return Start(parser, config, initial=initial)


def _initial(config: Namespace) -> Checkpoint | None:
    return None if config.init_from is None else Checkpoint.read(Path(config.init_from))


def changed_settings(run: Run, saved: Namespace, config: Namespace) -> set[str]:
    """Return the names of the settings that are not the run's.

    Raises:
        UsageError: if one of them would change the experiment.
    """
    names = {*saved.keys(), *config.keys()} - {"config", "ckpt_path"}
    changed = {name for name in names if saved.get(name) != config.get(name)}
    if not DATASETS.keys() & {saved.data.dataset, config.data.dataset}:
        changed.discard("data.dataset")  # a folder may be moved: its images are compared when it is read
    for name in sorted(changed):
        if not f"{name}.".startswith(tuple(f"{allowed}." for allowed in CHANGEABLE)):
            raise UsageError(
                f"--{name} cannot change when a run is resumed ({run.folder} has {saved.get(name)}): "
                f"to start a new run from its weights, give --init_from {run.checkpoints / 'best.ckpt'}"
            )
    return changed


def _check_limits(config: Namespace, resumed: Checkpoint) -> None:
    """Raise UsageError if a checkpoint is already behind the new limits."""
    content: dict[str, Any] = resumed.content
    if content.get("should_stop"):
        raise UsageError(f"a callback ended the training of {resumed.path}: start a new run to train longer")
    begun = {"max_epochs": (content["epoch"] + 1, "epochs begun"), "max_steps": (content["global_step"], "steps")}
    for name, (done, what) in begun.items():
        if config.trainer[name] is not None and -1 < config.trainer[name] < done:
            raise UsageError(f"--trainer.{name} {config.trainer[name]}: {resumed.path} has {done:,} {what} already")
