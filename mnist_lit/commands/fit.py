"""Train one run, or one for each of several seeds."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

from jsonargparse import Namespace
from torch import get_num_threads, set_num_threads

from mnist_lit.commands.resume import (
    LIMITS,
    NOT_OF_THE_EXPERIMENT,
    Start,
    changed_settings,
    find_run,
    new_start,
    resume_run,
)
from mnist_lit.commands.settings import Parser, build_parser, parse
from mnist_lit.commands.train import train, try_out
from mnist_lit.datasets.catalog import MNIST, has_photographs
from mnist_lit.runs.folders import ROOT, Run, find_versions
from mnist_lit.runs.results import format_seeds
from mnist_lit.runs.series import Claim, Series, find_series, join_series
from mnist_lit.system.distributed import is_one_process, process_rank
from mnist_lit.system.errors import UsageError
from mnist_lit.system.processes import run_workers, share_cores
from mnist_lit.system.program import PROGRAM
from mnist_lit.system.signals import Stopped, is_worker
from mnist_lit.training.callbacks import DivergedError

__all__ = ["digest_settings", "fit"]

SERIES = "MNIST_LIT_SERIES"
"""The environment variable with the file of the series whose seeds a worker trains."""


@contextmanager
def _restored_threads() -> Iterator[None]:
    """Restore the number of threads, which a series may have changed: a caller of `main` goes on in this process."""
    number = get_num_threads()
    try:
        yield
    finally:
        if get_num_threads() != number:
            set_num_threads(number)


@_restored_threads()
def fit(argv: Sequence[str]) -> None:
    """Train a run, or resume one; with `--seeds`, a run for each of several seeds, which are resumed together.

    With `--processes`, workers train the seeds.

    Raises:
        UsageError: if a flag is wrong.
        OSError, ValueError: if there is nothing to resume, or the run of a seed failed.
    """
    parser = build_parser("fit")
    config = parse(parser, argv)
    if is_worker():
        _work(Series(Path(os.environ[SERIES])), argv, resumed=config.ckpt_path is not None)
        return
    if config.ckpt_path is not None:
        start = _resume(parser, config, argv)
    elif config.seeds:
        _train_seeds(config, argv)
        return
    elif config.processes > 1:
        raise UsageError("--processes: they share the seeds of several runs: give --seeds, too")
    else:
        start = new_start(parser, config, argv)
    if not start:
        return
    if start.config.trainer.fast_dev_run:
        try_out(start)
        return
    run, dataset = train(start), start.config.data.dataset
    if process_rank() == 0 and (run.checkpoints / "best.ckpt").is_file():
        images = " --images PHOTO.jpg" if dataset == MNIST.name or has_photographs(dataset) else ""
        print(f"\nnext:  tensorboard --logdir {ROOT}\n       {PROGRAM} test\n       {PROGRAM} predict{images}")


def _resume(parser: Parser, config: Namespace, argv: Sequence[str]) -> Start | None:
    """Return where to resume a run, or None if it is finished, or one of several seeds, which are all resumed here."""
    run, path = find_run(parser, config, argv)
    is_last = (path and path.resolve()) == (run.last and run.last.resolve())
    if series := find_series(run):
        if not series.ended and (is_last or config.seeds or config.processes > 1):
            _resume_seeds(series, run, argv)
            return None
        _use_threads(series)
    if config.seeds or config.processes > 1:
        flag = "seeds" if config.seeds else "processes"
        raise UsageError(f"--{flag}: {run.folder} is no run of several seeds that is unfinished: start new ones")
    return resume_run(run, path, argv)


def _train_seeds(config: Namespace, argv: Sequence[str]) -> None:
    """Train a run for each seed. Processes that are started alike share the seeds."""
    seeds = range(config.seed, config.seed + config.seeds)
    if seeds[-1] >= 2**32:
        raise UsageError(f"--seeds: {seeds[-1]:,} is no seed, which is less than {2**32:,}")
    _check_trainer(config)
    threads = share_cores(min(config.processes, len(seeds)))
    series, claim = join_series(config.experiment, seeds, digest_settings(config), threads)
    _train_series(series, claim, argv, argv, config.processes)


def _check_trainer(config: Namespace) -> None:
    """Raise UsageError if the runs of several seeds cannot be trained so."""
    if config.trainer.fast_dev_run:
        raise UsageError("--seeds: --trainer.fast_dev_run records nothing to compare")
    if not is_one_process(config.trainer.devices, config.trainer.num_nodes):
        raise UsageError("--seeds: a run has one process then: give --processes to train seeds in parallel")


def digest_settings(config: Namespace) -> str:
    """Return a digest of the settings of the experiment, which processes that share seeds have in common."""
    settings = config.clone()
    for name in NOT_OF_THE_EXPERIMENT:
        settings.pop(name, None)
    return sha256(json.dumps(settings.as_dict(), sort_keys=True, default=str).encode()).hexdigest()


def _resume_seeds(series: Series, run: Run, argv: Sequence[str]) -> None:
    """Resume the runs of a series that were interrupted, and train the seeds that are left, as `run` was trained.

    Raises:
        UsageError: if a flag would change the experiment, or how long it is.
    """
    parser = build_parser("fit")
    saved, config = (parse(parser, [f"--config={run.config}", *flags]) for flags in ((), argv))
    if config.seeds not in {None, len(series.seeds)}:
        raise UsageError(
            f"--seeds: {series.path} has {len(series.seeds)} seeds; for others, start fit with another --seed"
        )
    if config.seed in {saved.seed, series.seeds[0]}:
        config.seeds, config.seed = None, saved.seed  # the command that has started the series
    for name in sorted(changed_settings(run, saved, config) & {*LIMITS}):
        raise UsageError(f"--{name} cannot change: {series.path} has seeds that are not trained yet")
    _check_trainer(config)
    _train_series(series, series.claim(), [f"--config={run.config}", *argv], argv, config.processes)


def _use_threads(series: Series) -> None:
    """Compute with as many threads as the runs of a series began with: another number rounds differently."""
    if series.threads not in {None, get_num_threads()}:
        set_num_threads(series.threads)


def _train_series(
    series: Series, claim: Claim | None, settings: Sequence[str], changes: Sequence[str], processes: int
) -> None:
    """Train all seeds that no other process trains, here or in workers, and print the table.

    Args:
        series: of all seeds.
        claim: the first seed, None if none is left.
        settings: flags of new runs.
        changes: flags that win over the settings of runs that are resumed.
        processes: that share the seeds.

    Raises:
        ValueError: at the end, if the runs of some seeds failed or are missing.
    """
    failure = None
    try:
        if processes == 1:
            _train_claims(series, claim, settings, changes)
        elif claim:
            failure = _run_workers(series, claim, changes, processes)
        _report(series, failure)
    finally:
        series.clean()


def _run_workers(series: Series, claim: Claim, argv: Sequence[str], processes: int) -> str | None:
    """Run workers, at most one for each seed that is left, and return which have failed (see `run_workers`)."""
    try:
        with series.shared():
            claim.release()
            number = min(processes, len(series.free()))
            threads = series.threads or share_cores(number)
            return run_workers(["fit", *argv, "--processes=1"], number, threads, **{SERIES: str(series.path)})
    except Stopped as stopped:
        hint = f": to resume, {PROGRAM} fit --ckpt_path last" if series.runs() else ""
        raise Stopped(stopped.exit_code - 128, hint) from None


def _work(series: Series, argv: Sequence[str], *, resumed: bool) -> None:
    """Train seeds as a worker: the parent has checked the flags, and prints the table."""
    configs = [f"--config={run.config}" for run in series.runs().values()][:1] if resumed else []
    _train_claims(series, series.claim(), [*configs, *argv], argv)


def _train_claims(series: Series, claim: Claim | None, settings: Sequence[str], changes: Sequence[str]) -> None:
    """Train seeds until none is left that no other process trains (see `_train_series`)."""
    _use_threads(series)
    seeds = series.seeds
    while claim:
        print(f"seed     {claim.seed} ({seeds.index(claim.seed) + 1} of {len(seeds)})")
        following = None
        try:
            _train_claim(series, claim, settings, changes)
            following = series.claim()  # before the release: others see that the series is being trained
        finally:
            claim.release()
        claim = following


def _train_claim(series: Series, claim: Claim, settings: Sequence[str], changes: Sequence[str]) -> None:
    """Train the run of a seed, or resume it. If it diverges, the other seeds may do better."""
    own = ["--seeds=null", f"--seed={claim.seed}"]  # of flags that are given twice, the last wins
    if claim.run:
        start = resume_run(claim.run, claim.run.last, [*changes, *own])
    else:
        flags = [*settings, *own, f"--experiment={series.path.parent.name}"]  # which may have been renamed
        parser = build_parser("fit")
        start = new_start(parser, parse(parser, flags), flags)
    try:
        if start:
            train(start, opened=partial(series.add, claim.seed))
    except DivergedError as error:
        print(f"seed {claim.seed} failed: {error}")
    print()


def _report(series: Series, failure: str | None) -> None:
    """Print the table of all seeds, unless another process still trains some.

    Args:
        series: of all seeds.
        failure: which workers have failed, if any.

    Raises:
        ValueError: if runs failed, or workers; others may have trained the seeds of those.
    """
    free = series.free()  # before: a run may end meanwhile
    runs, folder = series.runs(), series.path.parent
    if failure and not runs:  # nothing to resume
        raise ValueError(failure)
    left = [seed for seed in series.seeds if not (seed in runs and runs[seed].ended)]
    if {*left} - {*free}:
        print(f"another process trains {', '.join(map(str, left))}, and prints the table at its end")
        if failure:
            raise ValueError(failure)
        return
    finished = {
        seed: (run.folder.name, run.results()) for seed, run in sorted(runs.items()) if run.ended and not run.failed
    }
    if finished:
        recipe = folder if len(find_versions(folder)) == len(runs) else series.path
        print(f"{folder}\n{format_seeds(finished)}\n\nnext:  {PROGRAM} compare {recipe} {ROOT / 'OTHER'}")
    if left:
        names = ", ".join(map(str, left))
        reason = failure or "another process has ended early"
        raise ValueError(f"{reason}: to train what is left of {names}, {PROGRAM} fit --ckpt_path last")
    for seed, run in runs.items():
        if run.failed:
            number = len(runs) - len(finished)
            raise ValueError(f"{number} of {len(runs)} runs failed, the first with seed {seed}: {run.folder}")
    if failure:
        raise ValueError(failure)
