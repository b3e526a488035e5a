"""Where a training starts: at its beginning, from a checkpoint's weights, or where an interrupted run stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from mnist_lit.checkpoints import open_checkpoint, read_checkpoint, settings_of
from mnist_lit.classifier import NETWORK_SETTINGS
from mnist_lit.processes import say
from mnist_lit.runs import Run, find_interrupted
from mnist_lit.settings import parse, take_defaults
from mnist_lit.usage import UsageError

__all__ = ["Start", "find_start"]

LENGTH = ("trainer.max_epochs", "trainer.max_steps")
LIMITS = (*LENGTH, "trainer.max_time", "trainer.min_epochs", "trainer.min_steps")
RESUMABLE = (
    *LIMITS,
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
"""What may be another when a run is resumed, since it does not change the experiment."""


@dataclass(frozen=True)
class Start:
    """Where training starts: at the beginning of a new run or, with `run`, in the middle of an old one."""

    config: Namespace
    run: Run | None = None
    path: Path | None = None
    """The checkpoint to resume; none if the run was interrupted before it had saved one."""
    content: dict[str, Any] | None = None
    weights: dict[str, Any] | None = None
    """The checkpoint of `--init_from`."""


def find_start(parser: ArgumentParser, argv: Sequence[str]) -> Start | None:
    """Return where to start, or None (and say so) where everything is done.

    Raises:
        UsageError: if a flag is wrong, would change the experiment of a run that is resumed, or asks for more steps
            than its schedule has.
        OSError, ValueError: if there is nothing to resume (see `find_interrupted`, `open_checkpoint`).
    """
    config = parse(parser, argv)
    if config.ckpt_path is None:
        if weights := _weights(config):  # the network is that of the checkpoint, but for the flags that are given
            model = {name: value for name, value in settings_of(weights)["model"].items() if name in NETWORK_SETTINGS}
            take_defaults(parser, {"model": model}, Path(config.init_from))
            config = parse(parser, argv)
        return Start(config, weights=weights)
    if config.init_from is not None:
        raise UsageError("--init_from starts a new run, --ckpt_path resumes one: give one of them")
    parser.set_defaults({"experiment": None})  # the runs of all experiments, unless one is named
    run, path = find_interrupted(config.ckpt_path, parse(parser, argv).experiment)
    saved, config = (parse(parser, [f"--config={run.config}", *flags]) for flags in ((), argv))
    changed = _changed(run, saved, config)
    if changed & set(LENGTH) and config.model.schedule != "constant":
        raise UsageError(f"the schedule of {run.folder} has a fixed number of steps: start a new run to train longer")
    longer = bool(changed & set(LIMITS))
    if "fit" in run.results() and not longer:
        say(f"{run.folder} is finished: give more --trainer.max_epochs to train it longer")
        return None
    if path is None:
        say(f"{run.folder} was interrupted before its first checkpoint: it starts again")
        return Start(config, run, weights=_weights(config))
    path, content = open_checkpoint(path)
    if longer:
        _check_longer(config, content, path)
    say(f"resuming {path}")
    return Start(config, run, path, content)


def _weights(config: Namespace) -> dict[str, Any] | None:
    return None if config.init_from is None else read_checkpoint(Path(config.init_from))


def _changed(run: Run, saved: Namespace, config: Namespace) -> set[str]:
    """Return the settings that are not those of a run.

    Raises:
        UsageError: if one of them would change the experiment.
    """
    names = {*saved.keys(), *config.keys()} - {"config", "ckpt_path"}
    changed = {name for name in names if saved.get(name) != config.get(name)}
    for name in sorted(changed):
        if not f"{name}.".startswith(tuple(f"{allowed}." for allowed in RESUMABLE)):
            raise UsageError(
                f"--{name} cannot change when a run is resumed ({run.folder} has {saved.get(name)}): "
                f"to start a new run from its weights, give --init_from {run.checkpoints / 'best.ckpt'}"
            )
    return changed


def _check_longer(config: Namespace, content: dict[str, Any], path: Path) -> None:
    """Raise UsageError where new limits cannot be reached from a checkpoint."""
    if content.get("should_stop"):
        raise UsageError(f"a callback ended the training of {path}: start a new run to train longer")
    begun = {"max_epochs": (content["epoch"] + 1, "epochs begun"), "max_steps": (content["global_step"], "steps")}
    for name, (done, what) in begun.items():
        if config.trainer[name] is not None and -1 < config.trainer[name] < done:
            raise UsageError(f"--trainer.{name} {config.trainer[name]}: {path} has {done:,} {what} already")
