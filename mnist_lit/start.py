"""Where a training starts: at its beginning, or where an interrupted run goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from mnist_lit.checkpoints import open_checkpoint
from mnist_lit.processes import say
from mnist_lit.runs import Run, find_interrupted
from mnist_lit.settings import parse
from mnist_lit.usage import UsageError

__all__ = ["Start", "find_start"]


@dataclass(frozen=True)
class Start:
    """Where training starts: at the beginning of a new run or, with `run`, in the middle of an old one."""

    config: Namespace
    run: Run | None = None
    path: Path | None = None
    """The checkpoint to go on from; none if the run was interrupted before it had saved one."""
    content: dict[str, Any] | None = None


def find_start(parser: ArgumentParser, argv: Sequence[str]) -> Start | None:
    """Return where to start, or None (and say so) where everything is done.

    Raises:
        UsageError: if a flag is wrong, or asks for more steps than the run's schedule has.
        OSError, ValueError: if there is nothing to go on from (see `find_interrupted`, `open_checkpoint`).
    """
    config = parse(parser, argv)
    if config.ckpt_path is None:
        return Start(config)
    parser.set_defaults({"experiment": None})  # the runs of all experiments, unless one is named
    run, path = find_interrupted(config.ckpt_path, parse(parser, argv).experiment)
    saved, config = (parse(parser, [f"--config={run.config}", *flags]) for flags in ((), argv))
    changed = any(config.trainer[limit] != saved.trainer[limit] for limit in ("max_epochs", "max_steps", "max_time"))
    if changed and config.model.schedule != "constant":
        raise UsageError(f"the schedule of {run.folder} has a fixed number of steps: start a new run to train longer")
    if "fit" in run.results() and not changed:
        say(f"{run.folder} is finished: give more --trainer.max_epochs to train it longer")
        return None
    if path is None:
        say(f"{run.folder} was interrupted before its first checkpoint: it starts again")
        return Start(config, run)
    path, content = open_checkpoint(path)
    say(f"resuming {path}")
    return Start(config, run, path, content)
