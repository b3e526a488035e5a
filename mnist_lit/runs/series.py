"""Runs that differ only in their seeds, which several processes may share."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mnist_lit.runs.folders import ROOT, Run, find_checkpoint, find_versions
from mnist_lit.system.files import is_locked, write_atomically

__all__ = ["Claim", "Series", "find_checkpoints", "find_runs", "find_series", "join_series"]

LOCK = ".seeds.lock"


@dataclass(frozen=True)
class Claim:
    """A seed that this process trains; others leave it alone until `release`, or until this process ends."""

    seed: int
    run: Run | None
    """The unfinished run of the seed, None if it has none yet."""
    lock: FileLock

    def release(self) -> None:
        """Leave the seed to others."""
        self.lock.release()


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

    @property
    def threads(self) -> int | None:
        """How many threads each run has: with another number, resumed runs would round differently."""
        threads: int | None = self._read().get("threads")
        return threads

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
        with _exclusively(self.path.parent):
            return self.claim_locked()

    def free(self) -> list[int]:
        """Return the seeds that are not trained yet, nor claimed by a living process."""
        with _exclusively(self.path.parent):
            unclaimed = [seed for seed in self.seeds if not self._is_locked(seed)]  # first: a run may end meanwhile
            runs = self.runs()
            return [seed for seed in unclaimed if not (seed in runs and runs[seed].ended)]

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Let others join the series within a context, while the processes that will claim its seeds are starting."""
        lock = self._lock("workers")
        with _exclusively(self.path.parent), suppress(Timeout):  # another process does it already
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def add(self, seed: int, run: Run) -> None:
        """Record the run of a seed."""
        with _exclusively(self.path.parent):
            content = self._read()
            content["runs"][str(seed)] = run.folder.name
            self.write(content)

    def clean(self) -> None:
        """Remove the lock files of a series that has ended, and all of it if no run has begun, after an error."""
        with _exclusively(self.path.parent):
            if not self.path.exists():  # another process has removed it
                return
            begun = self.runs() or self.is_being_trained()
            if begun and not self.ended:
                return
            if not begun:
                self.path.unlink()
            for path in self.path.parent.glob(f".{self.path.stem}_*.lock"):
                with suppress(PermissionError):  # Windows cannot remove open files
                    path.unlink()
            if not begun:
                with suppress(OSError):  # there are other runs, or the lock file is open on Windows
                    (self.path.parent / LOCK).unlink()
                    os.removedirs(self.path.parent)

    def is_being_trained(self) -> bool:
        """Return whether a living process has claimed a seed, or is starting others that will."""
        return self._is_locked("workers") or any(map(self._is_locked, self.seeds))

    def claim_locked(self) -> Claim | None:
        """Return the same as `claim`, for a caller that has locked the folder."""
        for seed in self.seeds:
            lock = self._lock(seed)
            try:
                lock.acquire()
            except Timeout:
                continue
            run = self.runs().get(seed)
            if not (run and run.ended):
                return Claim(seed, run, lock)
            lock.release()
        return None

    def has(self, seeds: Sequence[int], settings: str) -> bool:
        """Return whether it has these seeds and settings."""
        content = self._read()
        return (content["seeds"], content["settings"]) == ([*seeds], settings)

    def write(self, content: dict[str, Any]) -> None:
        """Write the file: its seeds, settings, threads and runs."""
        write_atomically(self.path, json.dumps(content, indent=2).encode() + b"\n")

    def _lock(self, what: int | str) -> FileLock:
        return FileLock(self.path.with_name(f".{self.path.stem}_{what}.lock"), timeout=0)

    def _is_locked(self, what: int | str) -> bool:
        """Return whether a living process has a lock. The caller has locked the folder: this takes it for a moment."""
        return is_locked(self._lock(what))

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            _ = [int(seed) for seed in (*content["seeds"], *content["runs"])], content["settings"]
            _ = content["runs"].items()
            if (threads := content.get("threads")) is not None and threads < 1:
                raise ValueError(threads)  # noqa: TRY301  # it is damaged as in the other cases
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{self.path} is no seeds_<n>.json of fit --seeds, or is damaged") from error
        return content


def join_series(
    experiment: str, seeds: Sequence[int], settings: str, threads: int | None = None
) -> tuple[Series, Claim | None]:
    """Return the series that another process is training now with the same seeds and settings, or a new one.

    Args:
        experiment: name of the folder in `runs`.
        seeds: of the runs.
        settings: a digest of all other settings.
        threads: of each run, if the series is new.

    Returns:
        The series, and a seed to train, unless all are finished or being trained.
    """
    folder = ROOT / experiment
    folder.mkdir(parents=True, exist_ok=True)
    with _exclusively(folder):
        numbered = {int(n): Series(path) for path in folder.glob("seeds_*.json") if (n := path.stem[6:]).isdecimal()}
        for _, series in sorted(numbered.items(), reverse=True):
            if series.has(seeds, settings) and not series.ended and series.is_being_trained():
                return series, series.claim_locked()
        series = Series(folder / f"seeds_{max(numbered, default=-1) + 1}.json")
        series.write({"seeds": [*seeds], "settings": settings, "threads": threads, "runs": {}})
        return series, series.claim_locked()  # claimed before others look: then they join


def find_series(run: Run) -> Series | None:
    """Return the series that a run belongs to, if any; of runs in other folders than `runs`, none."""
    parent = run.folder.parent
    for series in map(Series, parent.glob("seeds_*.json") if parent.parent == ROOT else ()):
        if run in series.runs().values():
            return series
    return None


def find_runs(path: Path) -> list[Run]:
    """Return finished runs: of an experiment's folder, of a file `seeds_<n>.json`, or the run whose folder it is.

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


def find_checkpoints(which: Sequence[str], experiment: str | None = None) -> list[Path]:
    """Return the paths of several checkpoints, each once: those of `find_checkpoint`, and the best of `find_runs`.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
    """
    paths: dict[Path, Path] = {}
    for name in which:
        if name not in {"best", "last"} and (Path(name).is_dir() or name.endswith(".json")):
            found = [run.checkpoints / "best.ckpt" for run in find_runs(Path(name))]
        else:
            found = [find_checkpoint(name, experiment)]
        paths |= {path.resolve(): path for path in found}
    return list(paths.values())


@contextmanager
def _exclusively(folder: Path) -> Iterator[None]:
    """Wait until no other process looks for a seed in the folder, or records a run."""
    with FileLock(folder / LOCK):
        yield
