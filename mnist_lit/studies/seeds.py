"""Runs that differ only in their seeds, trained one after the other, and their table."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from math import ceil
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from jsonargparse import Namespace

from mnist_lit.commands.fit import NOT_OF_THE_EXPERIMENT, new_start, resume_run, train
from mnist_lit.commands.flags import build_data, build_parser, parse, replace_values
from mnist_lit.runs.folders import RESULTS, ROOT, Run, find_versions
from mnist_lit.studies.statistics import mean_interval
from mnist_lit.system.errors import UsageError
from mnist_lit.system.files import write_atomically
from mnist_lit.system.output import say
from mnist_lit.system.program import PROGRAM
from mnist_lit.training.callbacks import DivergedError

__all__ = [
    "STAGES",
    "align",
    "differing_settings",
    "find_runs",
    "limited",
    "read_results",
    "require_complete_runs",
    "train_seeds",
    "validation_images",
]

NOT_OF_A_RECIPE = tuple(f"{name}." for name in {"experiment", "seed", "seeds", *NOT_OF_THE_EXPERIMENT})
STAGES = ("validation", "test")
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""Errors that the JSON of another program may cause."""
Series = dict[int, Run | None]
"""The run of each seed, None if it has not begun; `seeds_<n>.json` records it, where n is the first run's number."""


def train_seeds(argv: Sequence[str], given: Mapping[str, Any], found: tuple[Run, Path | None] | None) -> bool:
    """Train or resume the runs of several seeds, and print their table; return whether the flags ask for that.

    Args:
        argv: flags of `fit`.
        given: the values of `ckpt_path`, `experiment`, `init_from` and `seeds`, where they are given.
        found: the run that `--ckpt_path` resumes, and its checkpoint.

    Raises:
        UsageError: if a flag is wrong.
        OSError, ValueError: if the run of a seed failed.
    """
    if found:
        run, _ = found
        recorded = map(read_series, run.folder.parent.glob("seeds_*.json"))
        series = next((series for series in recorded if run in series.values()), Series())
        if given["ckpt_path"] != "last" or all(run and run.ended for run in series.values()):
            return False
        argv = [f"--config={run.config}", f"--seed={min(series)}", f"--seeds={len(series)}", *argv]
    config = new_start(argv).config
    require_complete_runs(config, "--seeds")
    path, series = _find_series(config)
    if found and not path:
        raise UsageError(f"--ckpt_path: {run.folder} is in an unfinished series: leave out flags that change it")
    _train_series(path, series, argv)
    return True


def require_complete_runs(config: Namespace, flag: str) -> None:
    """Raise UsageError if runs with these settings would be trained in several processes, or record nothing."""
    devices = config.trainer.devices
    number = len(devices) if isinstance(devices, list) else devices
    if str(number) != "1" or config.trainer.num_nodes != 1:
        raise UsageError(f"{flag}: each run is trained in one process: leave --trainer.devices and num_nodes at 1")
    if config.trainer.fast_dev_run:
        raise UsageError(f"{flag}: --trainer.fast_dev_run records nothing to compare")


def differing_settings(configs: Sequence[Namespace]) -> list[str]:
    """Return the names of the settings in which recipes differ; their seeds and folders do not count."""
    names = sorted({name for config in configs for name in config.keys()})  # noqa: SIM118  # those within groups too
    recipe = [name for name in names if not f"{name}.".startswith(NOT_OF_A_RECIPE)]
    return [name for name in recipe if any(config.get(name) != configs[0].get(name) for config in configs)]


def read_series(path: Path) -> Series:
    """Return the series that a file `seeds_<n>.json` records.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        numbers = {int(seed): int(name.removeprefix("version_")) for seed, name in content["runs"].items()}
        runs = {seed: Run(path.parent / f"version_{number}") for seed, number in numbers.items()}  # in no other folder
        begun = {seed: run for seed, run in runs.items() if run.config.is_file()}
        return {int(seed): begun.get(int(seed)) for seed in content["seeds"]}
    except UNREADABLE as error:
        raise ValueError(f"{path} was not written by fit --seeds, or is damaged") from error


def _find_series(config: Namespace) -> tuple[Path | None, Series]:
    """Return the unfinished series of the same seeds and settings, with its file, or a new one."""
    seeds, parser = [*range(config.seed, config.seed + config.seeds)], build_parser("fit")
    if seeds[-1] >= 2**32:
        raise UsageError(f"--seeds: a seed is less than {2**32:,}, and {seeds[-1]:,} is not")
    config = replace_values(parser, config, {"data.val_size": build_data(config.data).val_size})  # as `train` saves it
    for path in (ROOT / config.experiment).glob("seeds_*.json"):
        series = read_series(path)
        begun = [run for run in series.values() if run]
        if [*series] != seeds or not begun or all(run and run.ended for run in series.values()):
            continue
        if not differing_settings([config, *(parse(parser, [f"--config={run.config}"]) for run in begun)]):
            return path, series
    return None, dict.fromkeys(seeds)


def _train_series(path: Path | None, series: Series, flags: Sequence[str]) -> None:
    """Train the seeds that are left, with the flags of `fit`, and print the table.

    Raises:
        ValueError: at the end, if the runs of some seeds failed.
    """

    def record(run: Run) -> None:
        nonlocal path
        series[seed] = run
        path = path or run.folder.with_name(f"{run.folder.name.replace('version', 'seeds')}.json")
        runs = {seed: run.folder.name for seed, run in series.items() if run}
        write_atomically(path, json.dumps({"seeds": [*series], "runs": runs}, indent=2).encode() + b"\n")

    for number, (seed, run) in enumerate(series.items(), start=1):
        if run and run.ended:
            continue
        say(f"seed     {seed} ({number} of {len(series)})")
        seeded = [*flags, "--seeds=null", f"--seed={seed}"]
        start = resume_run(run, run.last, seeded) if run else new_start(seeded)
        try:
            if start:
                train(start, opened=record)
        except DivergedError as error:  # the other seeds may do better
            say(f"seed {seed} failed: {error}")
        except BaseException:
            if path and not any(read_series(path).values()):  # nothing is left
                path.unlink()
                with suppress(OSError):  # there are other runs
                    os.removedirs(path.parent)
            raise
        say("")
    runs = {seed: run for seed, run in series.items() if run}
    failed = [run for run in runs.values() if run.failed]
    if len(failed) < len(runs):
        say(str(path), *format_seeds(runs), "", f"next:  {PROGRAM} compare {path} {ROOT / 'OTHER'}")
    if failed:
        raise ValueError(f"{len(failed)} of {len(runs)} runs failed, the first is {failed[0].folder}")


def find_runs(path: Path) -> tuple[list[Run], list[Run]]:
    """Return the finished and the failed runs of an experiment's folder or a file `seeds_<n>.json`, or a single run.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is damaged.
    """
    if path.suffix == ".json" and path.is_file():
        runs = [run for run in read_series(path).values() if run]
    else:
        runs = [Run(path)] if Run(path).config.is_file() else [Run(version) for version in find_versions(path)]
    if not (finished := [run for run in runs if "fit" in run.results() and (run.checkpoints / "best.ckpt").is_file()]):
        raise FileNotFoundError(f"no finished run in {path}: give the folder of an experiment or of a run")
    return finished, [run for run in runs if run.failed]


def read_results(run: Run) -> dict[str, Any]:
    """Return what a finished run has recorded: accuracies, None without validation or test, epochs, seconds, images.

    `images` is the number of images of each stage, and `made_by` what the run was made by, see `runs.provenance`.

    Raises:
        ValueError: if the file is damaged.
    """
    results = run.results()
    try:
        fit, test = results["fit"], results.get("test", {"accuracy": None})
        found = {"validation": fit["best_val_accuracy"], "test": test["accuracy"]}
        accuracies = {stage: None if accuracy is None else float(accuracy) for stage, accuracy in found.items()}
        images = {"validation": validation_images(run), "test": int(test.get("total", 0))}
        others = {"images": images, "made_by": dict(results.get("made_by", {}))}
        return accuracies | others | {name: float(fit[name]) for name in ("epochs", "seconds")}
    except UNREADABLE as error:
        raise ValueError(f"{run.folder / RESULTS} does not have the results of a run: repair or remove it") from error


def validation_images(run: Run) -> int:
    """Return the number of images on which a run was validated."""
    settings = run.settings()
    size, limit = int(settings.get("data.val_size") or 0), settings.get("trainer.limit_val_batches")
    batch = int(settings.get("data.batch_size") or 1)
    return min(size, limited(ceil(size / batch), limit) * batch)


def limited(batches: int, limit: float | None) -> int:
    """Return how many batches a limit of the Trainer leaves: it is a fraction (float), a number (int) or None."""
    return batches if limit is None else int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def format_seeds(runs: Mapping[int, Run]) -> list[str]:
    """Return a table of runs that differ only in their seeds, and a line about the accuracies of each stage."""
    results = {seed: read_results(run) for seed, run in runs.items() if not run.failed}
    rows = [["seed", "run", *STAGES, "seconds"]]
    for seed, run in runs.items():
        if run.failed:
            rows.append([str(seed), run.folder.name, "failed"])
            continue
        found = results[seed]
        accuracies = ["" if found[stage] is None else f"{found[stage]:.2%}" for stage in STAGES]
        rows.append([str(seed), run.folder.name, *accuracies, f"{found['seconds']:.1f}"])
    lines = align(rows)
    for stage in STAGES:
        by_seed = {seed: found[stage] for seed, found in results.items()}
        if len(by_seed) < 2 or None in by_seed.values():
            continue
        values, images = [*by_seed.values()], min(found["images"][stage] for found in results.values())
        best, worst = (choose(by_seed, key=by_seed.__getitem__) for choose in (max, min))
        line = f"{stage}: {fmean(values):.2%} ± {stdev(values):.2%}"
        if by_seed[best] > by_seed[worst]:
            line += f", best seed {best}, worst seed {worst}"
        if interval := mean_interval(values, images):
            low, high = interval.ends
            line += f"; other seeds and images, 95 %: {low:.2%} to {high:.2%} ({interval.parts})"
        lines.append(line)
    if failed := len(runs) - len(results):
        lines.append(f"{failed} of {len(runs)} runs failed, and are not in these figures")
    return lines


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
