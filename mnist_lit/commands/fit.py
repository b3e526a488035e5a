"""Train one run, or one for each of several seeds."""

import json
from collections.abc import Sequence
from functools import partial
from hashlib import sha256

from jsonargparse import Namespace

from mnist_lit.commands.resume import (
    LIMITS,
    NOT_OF_THE_EXPERIMENT,
    Start,
    changed_settings,
    find_run,
    new_start,
    resume_run,
)
from mnist_lit.commands.settings import build_parser, parse
from mnist_lit.commands.train import train, try_out
from mnist_lit.datasets.catalog import MNIST, has_photographs
from mnist_lit.runs.folders import ROOT, Run, find_versions
from mnist_lit.runs.results import format_seeds
from mnist_lit.runs.series import Claim, Series, find_series, join_series
from mnist_lit.system.distributed import is_one_process, process_rank
from mnist_lit.system.errors import UsageError
from mnist_lit.system.program import PROGRAM
from mnist_lit.training.callbacks import DivergedError

__all__ = ["digest_settings", "fit"]


def fit(argv: Sequence[str]) -> None:
    """Train a run, or resume one; with `--seeds`, a run for each of several seeds, which are resumed together.

    Raises:
        UsageError: if a flag is wrong.
        OSError, ValueError: if there is nothing to resume, or the run of a seed failed.
    """
    parser = build_parser("fit")
    config = parse(parser, argv)
    if config.ckpt_path is None:
        if config.seeds:
            _train_seeds(config, argv)
            return
        start: Start | None = new_start(parser, config, argv)
    else:
        run, path = find_run(parser, config, argv)
        is_last = (path and path.resolve()) == (run.last and run.last.resolve())
        if (series := find_series(run)) and not series.ended and (is_last or config.seeds):
            _resume_seeds(series, run, argv)
            return
        if config.seeds:
            raise UsageError(f"--seeds: {run.folder} is no run of several seeds that is unfinished: start new ones")
        start = resume_run(run, path, argv)
    if not start:
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
    seeds = range(config.seed, config.seed + config.seeds)
    if seeds[-1] >= 2**32:
        raise UsageError(f"--seeds: {seeds[-1]:,} is no seed, which is less than {2**32:,}")
    _check_trainer(config)
    series, claim = join_series(config.experiment, seeds, digest_settings(config))
    _train_claims(series, claim, argv, argv)


def _check_trainer(config: Namespace) -> None:
    """Raise UsageError if the runs of several seeds cannot be trained so."""
    if config.trainer.fast_dev_run:
        raise UsageError("--seeds: --trainer.fast_dev_run records nothing to compare")
    if not is_one_process(config.trainer.devices, config.trainer.num_nodes):
        raise UsageError(
            "--seeds: a run has one process then: start the command several times to train seeds in parallel"
        )


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
    _train_claims(series, series.claim(), [f"--config={run.config}", *argv], argv)


def _train_claims(series: Series, claim: Claim | None, settings: Sequence[str], changes: Sequence[str]) -> None:
    """Train seeds until none is left that no other process trains, and print the table of all.

    Args:
        series: of all seeds.
        claim: the first seed, None if none is left.
        settings: flags of new runs.
        changes: flags that win over the settings of runs that are resumed.

    Raises:
        ValueError: at the end, if the runs of some seeds failed.
    """
    seeds = series.seeds
    try:
        while claim:
            print(f"seed     {claim.seed} ({seeds.index(claim.seed) + 1} of {len(seeds)})")
            following = None
            try:
                _train_claim(series, claim, settings, changes)
                following = series.claim()  # before the release: others see that the series is being trained
            finally:
                claim.release()
            claim = following
    finally:
        series.clean()
    _report(series)


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


def _report(series: Series) -> None:
    """Print the table of all seeds, unless another process still trains some.

    Raises:
        ValueError: if runs failed.
    """
    runs, folder = series.runs(), series.path.parent
    if others := [seed for seed in series.seeds if not (seed in runs and runs[seed].ended)]:
        print(f"another process trains {', '.join(map(str, others))}, and prints the table at its end")
        return
    finished = {seed: (run.folder.name, run.results()) for seed, run in sorted(runs.items()) if not run.failed}
    if finished:
        recipe = folder if len(find_versions(folder)) == len(runs) else series.path
        print(f"{folder}\n{format_seeds(finished)}\n\nnext:  {PROGRAM} compare {recipe} {ROOT / 'OTHER'}")
    for seed, run in runs.items():
        if run.failed:
            number = len(runs) - len(finished)
            raise ValueError(f"{number} of {len(runs)} runs failed, the first with seed {seed}: {run.folder}")
