"""Runs that differ only in their seeds, trained one after the other, and their table."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from jsonargparse import Namespace

from mnist_lit.commands.fit import LIMITS, NOT_OF_THE_EXPERIMENT, Start, changed_settings, new_start, resume_run, train
from mnist_lit.runs.folders import ROOT, Run, find_versions
from mnist_lit.studies.statistics import mean_interval
from mnist_lit.system.errors import UsageError
from mnist_lit.system.files import write_atomically
from mnist_lit.system.program import PROGRAM
from mnist_lit.system.yaml_loader import load
from mnist_lit.training.callbacks import DivergedError

__all__ = ["Series", "find_runs", "format_seeds", "require_one_process", "train_seeds"]


@dataclass(frozen=True)
class Series:
    """The runs of several seeds, recorded in `runs/<experiment>/seeds_<n>.json`.

    Args:
        path: path of the file.
    """

    path: Path

    @property
    def seeds(self) -> list[int]:
        """All seeds, trained or not."""
        return list(self._read()["seeds"])

    @property
    def settings(self) -> str:
        """A digest of the settings that all runs have in common."""
        return str(self._read()["settings"])

    def runs(self) -> dict[int, Run]:
        """Return the runs that have begun, by seed."""
        runs = {int(seed): Run(self.path.parent / name) for seed, name in self._read()["runs"].items()}
        return {seed: run for seed, run in runs.items() if run.config.is_file()}

    @property
    def ended(self) -> bool:
        """Whether the runs of all seeds are finished, or have failed."""
        runs = self.runs()
        return all(seed in runs and runs[seed].ended for seed in self.seeds)

    def add(self, seed: int, run: Run) -> None:
        """Record the run of a seed."""
        content = self._read()
        content["runs"][str(seed)] = run.folder.name
        write_atomically(self.path, json.dumps(content, indent=2).encode() + b"\n")

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            _ = [int(seed) for seed in (*content["seeds"], *content["runs"])], content["settings"]
            if not all(re.fullmatch(r"version_\d+", name) for name in content["runs"].values()):
                raise ValueError("a run is in another folder")  # noqa: TRY301  # it is damaged as in the other cases
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{self.path} was not written by fit --seeds, or is damaged") from error
        return content


def train_seeds(argv: Sequence[str], given: Mapping[str, Any], found: tuple[Run, Path | None] | None) -> bool:
    """Train or resume the runs of several seeds, and print their table; return whether the flags ask for that.

    Args:
        argv: flags of `fit`.
        given: those of its flags that tell what it is about.
        found: the run that `--ckpt_path` resumes, and its checkpoint.

    Raises:
        UsageError: if a flag is wrong.
        OSError, ValueError: if the run of a seed failed.
    """
    if found:
        run, path = found
        folder, series = run.folder.parent, _find_series(run)
        is_last = path is None or path.resolve() == (run.checkpoints / "last.ckpt").resolve()
        is_here = folder.resolve() == (ROOT / folder.name).resolve()  # where the runs of new seeds go
        if not (series and is_last and is_here) or series.ended:
            if "seeds" in given:
                raise UsageError(f"--seeds: {run.folder} is not in an unfinished series: start one without --ckpt_path")
            return False
        start = new_start([f"--config={run.config}", *argv])
        _check_changes(series, run, start)
    else:
        start = new_start(argv)
        if start.config.trainer.fast_dev_run:
            raise UsageError("--seeds: --trainer.fast_dev_run records nothing to compare")
        require_one_process(start.config, "--seeds")
        series = _open_series(start.config)
    _train_series(series, start, argv)
    return True


def require_one_process(config: Namespace, flag: str) -> None:
    """Raise UsageError if a Trainer with these settings would train in several processes."""
    devices = config.trainer.devices
    number = len(devices) if isinstance(devices, list) else devices
    if str(number) != "1" or config.trainer.num_nodes != 1:
        raise UsageError(f"{flag}: each run is trained in one process: leave --trainer.devices and num_nodes at 1")


def _open_series(config: Namespace) -> Series:
    """Return the unfinished series of the same seeds and settings, or a new one."""
    seeds, digest, folder = [*range(config.seed, config.seed + config.seeds)], _digest(config), ROOT / config.experiment
    if seeds[-1] >= 2**32:
        raise UsageError(f"--seeds: a seed is less than {2**32:,}, and {seeds[-1]:,} is not")
    numbered = {int(n): Series(path) for path in folder.glob("seeds_*.json") if (n := path.stem[6:]).isdecimal()}
    for _, series in sorted(numbered.items(), reverse=True):
        if (series.seeds, series.settings) == (seeds, digest) and not series.ended:
            return series
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"seeds": seeds, "settings": digest, "runs": {}}, indent=2) + "\n"
    for n in count(max(numbered, default=-1) + 1):  # another process may take the same number
        with suppress(FileExistsError), (path := folder / f"seeds_{n}.json").open("x", encoding="utf-8") as file:
            file.write(content)
            break
    return Series(path)


def _digest(config: Namespace) -> str:
    settings = config.clone()
    for name in NOT_OF_THE_EXPERIMENT:
        settings.pop(name, None)
    return sha256(json.dumps(settings.as_dict(), sort_keys=True, default=str).encode()).hexdigest()


def _find_series(run: Run) -> Series | None:
    """Return the series that a run belongs to, if any."""
    for series in map(Series, run.folder.parent.glob("seeds_*.json")):
        if run.folder.name in {other.folder.name for other in series.runs().values()}:
            return series
    return None


def _check_changes(series: Series, run: Run, start: Start) -> None:
    """Raise UsageError if flags would change the experiment of a series, its seeds, or how long its runs are."""
    config = start.config.clone()
    require_one_process(config, "--seeds")
    if config.seeds not in {None, len(series.seeds)}:
        raise UsageError(
            f"--seeds: {series.path} has {len(series.seeds)} seeds: to train other ones, give another --seed"
        )
    own_seed = load(run.config.read_text(encoding="utf-8"))["seed"]
    config.seeds = None
    if config.seed == series.seeds[0]:  # in the command that has started the series
        config.seed = own_seed
    for name in sorted(changed_settings(run, start.parser, config) & {*LIMITS}):
        raise UsageError(f"--{name} cannot change: {series.path} has seeds that are not trained yet")


def _train_series(series: Series, first: Start, changes: Sequence[str]) -> None:
    """Train the seeds that are left, and print the table.

    Args:
        series: the series of all seeds.
        first: where the runs that have not begun start, but for their seeds.
        changes: flags that win over the settings of runs that are resumed.

    Raises:
        ValueError: at the end, if the runs of some seeds failed.
    """
    experiment = series.path.parent.name
    try:
        for number, seed in enumerate(series.seeds, start=1):
            run = series.runs().get(seed)
            if run and run.ended:
                continue
            print(f"seed     {seed} ({number} of {len(series.seeds)})")
            config = first.config.clone()
            config.seed, config.seeds, config.experiment = seed, None, experiment
            start: Start | None = Start(first.parser, config, initial=first.initial)
            if run:
                start = resume_run(
                    run, run.last, [*changes, "--seeds=null", f"--seed={seed}", f"--experiment={experiment}"]
                )
            try:
                if start:
                    train(start, opened=lambda opened, seed=seed: series.add(seed, opened))  # type: ignore[misc]
            except DivergedError as error:  # the other seeds may do better
                print(f"seed {seed} failed: {error}")
            print()
    finally:
        if not series.runs():  # after an error, nothing is left
            series.path.unlink()
            with suppress(OSError):  # there are other runs
                os.removedirs(series.path.parent)
    _report(series)


def _report(series: Series) -> None:
    runs, folder = series.runs(), series.path.parent
    finished = {seed: (run.folder.name, run.results()) for seed, run in sorted(runs.items()) if not run.failed}
    if finished:
        recipe = folder if len(find_versions(folder)) == len(runs) else series.path
        print(f"{folder}\n{format_seeds(finished)}\n\nnext:  {PROGRAM} compare {recipe} {ROOT / 'OTHER'}")
    for seed, run in runs.items():
        if run.failed:
            number = len(runs) - len(finished)
            raise ValueError(f"{number} of {len(runs)} runs failed, the first with seed {seed}: {run.folder}")


def find_runs(path: Path) -> list[Run]:
    """Return the finished runs of an experiment's folder or of a file `seeds_<n>.json`, or the run whose folder it is.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is damaged.
    """
    if path.suffix == ".json" and path.is_file():
        runs = list(Series(path).runs().values())
    else:
        runs = [Run(path)] if Run(path).config.is_file() else [Run(version) for version in find_versions(path)]
    if not (finished := [run for run in runs if "fit" in run.results() and (run.checkpoints / "best.ckpt").is_file()]):
        raise FileNotFoundError(f"no finished run in {path}: give the folder of an experiment or of a run")
    return finished


def format_seeds(results: Mapping[int, tuple[str, dict[str, Any]]]) -> str:
    """Return a table of runs that differ in their seeds only: each run, then the mean, its interval, and the spread.

    The best and the worst run are those by validation accuracy or, without validation, by test accuracy.

    Args:
        results: name and results of each run by its seed.
    """
    runs = [found for _, found in results.values()]
    columns = {
        "validation": ("{:.2%}", [found["fit"]["best_val_accuracy"] for found in runs]),
        "test": ("{:.2%}", [found.get("test", {}).get("accuracy") for found in runs]),
        "seconds": ("{:.1f}", [found["fit"]["seconds"] for found in runs]),
    }
    notes = [""] * len(runs)
    for _, accuracies in (columns["validation"], columns["test"]):
        if len(runs) > 1 and None not in accuracies:
            notes[accuracies.index(min(accuracies))] = "   worst"
            notes[accuracies.index(max(accuracies))] = "   best"
            break
    rows = [("seed", "run", [*columns], "")]
    for i, (seed, (name, _)) in enumerate(results.items()):
        cells = ["" if values[i] is None else form.format(values[i]) for form, values in columns.values()]
        rows.append((str(seed), name, cells, notes[i]))
    if len(runs) > 1:
        known = [[] if None in values else values for _, values in columns.values()]
        intervals = [mean_interval(accuracies) for accuracies in known[:2]]
        summaries = {
            "mean": [fmean(values) if values else None for values in known],
            "95 % from": [interval and interval[0] for interval in intervals] + [None],
            "     to": [interval and interval[1] for interval in intervals] + [None],
            "sd": [stdev(values) if values else None for values in known],
        }
        forms = [form for form, _ in columns.values()]
        for name, found in summaries.items():
            cells = ["" if value is None else form.format(value) for form, value in zip(forms, found, strict=True)]
            rows.append((name, "", cells, ""))
    return "\n".join(
        f"{seed:<10} {name:<12}{''.join(f'{cell:>12}' for cell in cells)}{note}".rstrip()
        for seed, name, cells, note in rows
    )
