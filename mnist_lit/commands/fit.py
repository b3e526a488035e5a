"""Train one run, or one for each of several seeds."""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256

from jsonargparse import Namespace

from mnist_lit.commands.resume import (
    LIMITS,
    Start,
    changed_settings,
    find_run,
    find_start,
    new_start,
    resume_run,
)
from mnist_lit.commands.settings import build_parser, parse
from mnist_lit.commands.train import PROGRAM, train, try_out
from mnist_lit.datasets.catalog import MNIST, has_photographs
from mnist_lit.runs.folders import ROOT, Run
from mnist_lit.runs.results import format_seeds
from mnist_lit.runs.series import Claim, Series, find_series, join_series
from mnist_lit.system.distributed import process_rank
from mnist_lit.system.errors import UsageError
from mnist_lit.training.callbacks import DivergedError

__all__ = ["fit"]


def fit(argv: Sequence[str]) -> None:
    """Train a run, or resume one; with `--seeds`, a run for each of several seeds, which are resumed together.

    Raises:
        UsageError: if a flag is wrong.
        OSError, ValueError: if there is nothing to resume, or the run of a seed failed.
    """
    config = parse(build_parser("fit"), argv)
    if found := find_run(argv):
        run, path = found
        if path == run.last and (series := find_series(run)) and not series.ended:
            _resume_seeds(series, run, argv)
            return
    elif config.seeds:
        _train_seeds(config, argv)
        return
    if not (start := find_start(argv)):
        return
    if start.config.trainer.fast_dev_run:
        try_out(start)
        return
    run, dataset = train(start), start.config.data.dataset
    if process_rank() == 0 and (run.checkpoints / "best.ckpt").is_file():
        images = " --images PHOTO.jpg" if dataset == MNIST.name or has_photographs(dataset) else ""
        print(f"\nnext:  tensorboard --logdir {ROOT}\n       {PROGRAM} test\n       {PROGRAM} predict{images}")


def _train_seeds(config: Namespace, argv: Sequence[str]) -> None:
    """Train a run for each seed. Processes that are started alike share the seeds."""
    if config.trainer.fast_dev_run:
        raise UsageError("--seeds: --trainer.fast_dev_run records nothing to compare")
    if str(config.trainer.devices) != "1" or config.trainer.num_nodes > 1:
        raise UsageError(
            "--seeds: a run has one process then: start the command several times to train seeds in parallel"
        )
    seeds = range(config.seed, config.seed + config.seeds)
    if seeds[-1] >= 2**32:
        raise UsageError(f"--seeds: {seeds[-1]:,} is no seed, which is less than {2**32:,}")
    series, claim = join_series(config.experiment, seeds, _digest(config))
    _train_claims(series, claim, argv, [])


def _digest(config: Namespace) -> str:
    """Return a digest of all settings."""
    text = build_parser("fit").dump(config, skip_unset=False)
    return sha256(text.encode()).hexdigest()


def _resume_seeds(series: Series, run: Run, argv: Sequence[str]) -> None:
    """Resume the runs of a series that were interrupted, and train the seeds that are left, as `run` was trained."""
    saved = [f"--config={run.config}"]
    parser = build_parser("fit")
    changed = changed_settings(run, parse(parser, saved), parse(parser, [*saved, *argv]))
    for name in sorted(changed & set(LIMITS)):
        raise UsageError(f"--{name} cannot change: {series.path} has seeds that are not trained yet")
    _train_claims(series, series.claim(), [*saved, *argv], argv)


def _train_claims(series: Series, claim: Claim | None, settings: Sequence[str], changes: Sequence[str]) -> None:
    """Train seeds until none is left that no other process trains, and print the table of all.

    Args:
        series: of all seeds.
        claim: the first seed, None if none is left.
        settings: flags of new runs, but their seed.
        changes: flags that win over the settings of runs that are resumed.

    Raises:
        ValueError: at the end, if the runs of some seeds failed.
    """
    seeds = series.seeds
    while claim:
        print(f"seed     {claim.seed} ({seeds.index(claim.seed) + 1} of {len(seeds)})")
        try:
            if start := _start(series, claim, settings, changes):
                train(start, opened=partial(series.add, claim.seed))
        except DivergedError as error:  # the others may do better
            print(f"seed {claim.seed} failed: {error}")
        finally:
            claim.release()
        print()
        claim = series.claim()
    runs = series.runs()
    if others := [seed for seed in seeds if not (seed in runs and runs[seed].ended)]:
        print(f"another process trains {', '.join(map(str, others))}: it prints the table at its end")
        return
    finished = {seed: (run.folder.name, run.results()) for seed, run in sorted(runs.items()) if not run.failed}
    if finished:
        folder = series.path.parent
        print(f"{folder}\n{format_seeds(finished)}\n\nnext:  {PROGRAM} compare {folder} {ROOT / 'OTHER'}")
    for seed, run in runs.items():
        if run.failed:
            raise ValueError(
                f"{len(runs) - len(finished)} of {len(runs)} runs failed, the first with seed {seed}: {run.folder}"
            )


def _start(series: Series, claim: Claim, settings: Sequence[str], changes: Sequence[str]) -> Start | None:
    """Return where to start with a seed: a new run, or the one that was interrupted."""
    if claim.run:
        return resume_run(claim.run, claim.run.last, changes)
    parser, flags = build_parser("fit"), [*settings, f"--seed={claim.seed}"]
    start = new_start(parser, parse(parser, flags), flags)
    start.config.seeds = None  # its config.yaml repeats this run, not all of them
    start.config.experiment = series.path.parent.name  # which may have been renamed
    return start
