"""Runs that differ only in their seeds, which several processes may share."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mnist_lit.runs.folders import ROOT, Run
from mnist_lit.system.files import write_atomically

__all__ = ["Claim", "Series", "find_series", "join_series"]


@dataclass(frozen=True)
class Claim:
    """A seed that this process trains; others leave it alone until `release`, or until this process ends."""

    seed: int
    run: Run | None
    """The unfinished run of the seed, None if it has none yet."""
    lock: FileLock

    def release(self) -> None:
        """Leave the seed to others."""
        _remove_and_release(self.lock)


@dataclass(frozen=True)
class Series:
    """The runs of several seeds, recorded in `runs/<experiment>/seeds_<n>.json`.

    Args:
        path: of the file.
    """

    path: Path

    @property
    def seeds(self) -> list[int]:
        """All seeds, trained or not."""
        return list(self._read()["seeds"])

    def runs(self) -> dict[int, Run]:
        """Return the runs that have begun, by seed."""
        runs = {int(seed): Run(self.path.parent / name) for seed, name in self._read()["runs"].items()}
        return {seed: run for seed, run in runs.items() if run.config.is_file()}

    @property
    def ended(self) -> bool:
        """Whether the runs of all seeds are finished, or have failed."""
        runs = self.runs()
        return all(seed in runs and runs[seed].ended for seed in self.seeds)

    def claim(self) -> Claim | None:
        """Return the first seed that is not trained yet, nor claimed by a living process, if there is one."""
        for seed in self.seeds:
            lock = FileLock(self.path.with_name(f".{self.path.stem}_{seed}.lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            run = self.runs().get(seed)
            if not (run and run.ended):
                return Claim(seed, run, lock)
            _remove_and_release(lock)
        return None

    def add(self, seed: int, run: Run) -> None:
        """Record the run of a seed."""
        with _lock_all(self.path.parent):
            content = self._read()
            content["runs"][str(seed)] = run.folder.name
            write_atomically(self.path, json.dumps(content, indent=2).encode() + b"\n")

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            _ = [int(seed) for seed in (*content["seeds"], *content["runs"])], content["settings"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{self.path} does not contain the seeds of runs: remove it") from error
        return content


def join_series(experiment: str, seeds: Sequence[int], settings: str) -> tuple[Series, Claim | None]:
    """Return the series that another process is training now with the same seeds and settings, or a new one.

    Args:
        experiment: name of the folder in `runs`.
        seeds: of the runs.
        settings: a digest of all other settings.

    Returns:
        The series, and a seed to train, unless all are finished or being trained.
    """
    folder = ROOT / experiment
    folder.mkdir(parents=True, exist_ok=True)
    with _lock_all(folder):
        numbered = {int(number): path for path in folder.glob("seeds_*.json") if (number := path.stem[6:]).isdecimal()}
        for _, path in sorted(numbered.items(), reverse=True):
            content = (series := Series(path))._read()  # noqa: SLF001
            if (content["seeds"], content["settings"]) == (list(seeds), settings) and _is_being_trained(series):
                return series, series.claim()
        series = Series(folder / f"seeds_{max(numbered, default=-1) + 1}.json")
        content = {"seeds": list(seeds), "settings": settings, "runs": {}}
        write_atomically(series.path, json.dumps(content, indent=2).encode() + b"\n")
        return series, series.claim()  # claimed before others look: then they join


def find_series(run: Run) -> Series | None:
    """Return the series that a run belongs to, if any; of runs in other folders than `runs`, none."""
    parent = run.folder.parent
    for series in map(Series, parent.glob("seeds_*.json") if parent.parent == ROOT else ()):
        if run in series.runs().values():
            return series
    return None


def _is_being_trained(series: Series) -> bool:
    for seed in series.seeds:
        try:
            with FileLock(series.path.with_name(f".{series.path.stem}_{seed}.lock"), timeout=0):
                pass
        except Timeout:
            return True
    return False


def _remove_and_release(lock: FileLock) -> None:
    with suppress(PermissionError):  # Windows cannot remove open files; FileLock removes it there
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


@contextmanager
def _lock_all(folder: Path) -> Iterator[None]:
    """Wait until no other process looks for a series in the folder, or changes one."""
    with FileLock(folder / ".seeds.lock"):
        yield
