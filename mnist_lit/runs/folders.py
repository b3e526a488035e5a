"""Run folders, `runs/<experiment>/version_<n>/`, and the files in them."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mnist_lit.system.files import write_atomically
from mnist_lit.system.yaml_loader import flatten, load

__all__ = [
    "PICTURES",
    "RESULTS",
    "ROOT",
    "Run",
    "find_checkpoint",
    "find_resumable",
    "find_versions",
    "new_run",
    "run_of",
]

ROOT = Path("runs")  # in the current folder
RESULTS, FAILURE = "results.json", "failed.txt"
PICTURES = ("curves.png", "confusion.png", "mistakes.png")


@dataclass(frozen=True)
class Run:
    """The folder of a run, with its config, checkpoints and results."""

    folder: Path

    @property
    def config(self) -> Path:
        """The file of all settings, which repeats the run."""
        return self.folder / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of `best.ckpt` and `last.ckpt`."""
        return self.folder / "checkpoints"

    @property
    def last(self) -> Path | None:
        """`last.ckpt`, or None if the run has not saved it yet."""
        return path if (path := self.checkpoints / "last.ckpt").is_file() else None

    def settings(self) -> dict[str, Any]:
        """Return the settings in `config.yaml` by their full names."""
        return flatten(load(self.config.read_text(encoding="utf-8")) or {})

    def results(self) -> dict[str, Any]:
        """Return the contents of `results.json`, by stage (`fit`, `test`), or {} if there is none.

        Raises:
            ValueError: if the file is damaged.
        """
        if not (path := self.folder / RESULTS).exists():
            return {}
        try:
            results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not valid JSON ({error}): repair or remove it") from error
        if not isinstance(results, dict) or not all(isinstance(stage, dict) for stage in results.values()):
            raise ValueError(f"{path} does not contain the results of a run: repair or remove it")
        return results

    def record(self, **stages: dict[str, Any]) -> None:
        """Write the results of stages to `results.json`, and keep those of other stages."""
        results = dict(sorted((self.results() | stages).items()))
        write_atomically(self.folder / RESULTS, json.dumps(results, indent=2).encode() + b"\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder within a context, so that no other process trains in it.

        Raises:
            OSError: if another process does.
        """
        path = self.folder / ".lock"
        try:
            with FileLock(path, timeout=0):
                try:
                    yield
                finally:
                    with suppress(PermissionError):  # Windows cannot remove open files; FileLock removes it there
                        path.unlink(missing_ok=True)
        except Timeout as error:
            raise OSError(f"{self.folder} is being trained by another process") from error

    def is_locked(self) -> bool:
        """Return whether another process trains in the folder."""
        if not self.folder.is_dir():
            return False
        try:
            with self.lock():
                return False
        except OSError:
            return True

    def remove(self) -> None:
        """Remove the folder, and its parents if they are empty then."""
        shutil.rmtree(self.folder)
        with suppress(OSError):  # there are other runs
            os.removedirs(self.folder.parent)

    def clear(self) -> None:
        """Remove the results of an earlier training, and partial files of a process that was killed."""
        written = [self.folder / name for name in (RESULTS, FAILURE, *PICTURES)]
        for path in (*written, *self.folder.rglob(".*.part")):
            path.unlink(missing_ok=True)

    def fail(self, reason: str) -> None:
        """Mark the run as failed, such that resuming it would not help."""
        write_atomically(self.folder / FAILURE, f"{reason}\n".encode())

    @property
    def failed(self) -> bool:
        """Whether `fail` was called: then `--ckpt_path last` skips the run."""
        return (self.folder / FAILURE).exists()

    @property
    def ended(self) -> bool:
        """Whether its training is finished, or has failed."""
        return self.failed or "fit" in self.results()


def new_run(experiment: str) -> Run:
    """Create a run folder with the next free version number, even if several processes do so at once.

    Raises:
        OSError: if the folder cannot be created.
    """
    parent = ROOT / experiment
    parent.mkdir(parents=True, exist_ok=True)
    number = max(map(_version, find_versions(parent)), default=-1) + 1
    while True:
        try:
            (folder := parent / f"version_{number}").mkdir()
            return Run(folder)
        except FileExistsError:
            number += 1


def find_checkpoint(which: str, experiment: str | None = None) -> Path:
    """Return the path of a checkpoint: `best` or `last` of the newest run (of the experiment) that has one, or a file.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
    """
    if which not in {"best", "last"}:
        if not (path := Path(which)).is_file():
            raise FileNotFoundError(f"no checkpoint at {which}: give best, last or the path of a .ckpt file")
        return path
    for run in _newest_first(experiment):
        if (path := run.checkpoints / f"{which}.ckpt").is_file():
            return path
    raise FileNotFoundError(f"no run with a {which} checkpoint in {ROOT / (experiment or '')}: train one with fit")


def find_resumable(which: str, experiment: str | None = None) -> tuple[Run, Path | None]:
    """Return the run to resume, and its checkpoint, or None if it has not saved one yet.

    `last` is that of the newest unfinished run, or of the newest run if all are finished; runs that failed are skipped.
    `best` and paths of files are resolved by `find_checkpoint`.

    Raises:
        FileNotFoundError: if there is no run or no such checkpoint.
        ValueError: if the checkpoint is not in a run folder.
    """
    if which == "last":
        if not (runs := _newest_first(experiment)):
            raise FileNotFoundError(f"no run in {ROOT / (experiment or '')}: train one with fit")
        if not (resumable := [run for run in runs if not run.failed]):
            raise FileNotFoundError(f"no run to resume: {runs[0].folder} failed, see {runs[0].folder / FAILURE}")
        run = next((run for run in resumable if "fit" not in run.results()), resumable[0])
        return run, run.last
    path = find_checkpoint(which, experiment)
    if (found := run_of(path)) is None:
        raise ValueError(f"{path} is not in a run folder: fit resumes a run in its own folder")
    return found, path


def run_of(checkpoint: Path) -> Run | None:
    """Return the run whose folder a checkpoint is in, or None."""
    folder = checkpoint.resolve().parent
    run = Run(folder.parent)
    with suppress(ValueError):  # on Windows, a path on another drive
        run = Run(Path(os.path.relpath(folder.parent)))
    return run if folder.name == run.checkpoints.name and run.config.is_file() else None


def _newest_first(experiment: str | None) -> list[Run]:
    parents = [ROOT / experiment] if experiment else ROOT.glob("*")
    runs = [run for parent in parents for run in map(Run, find_versions(parent)) if run.config.is_file()]
    return sorted(runs, key=lambda run: run.config.stat().st_mtime_ns, reverse=True)


def find_versions(parent: Path) -> list[Path]:
    """Return the run folders of an experiment in the order of their numbers."""
    return sorted((path for path in parent.glob("version_*") if path.name[8:].isdecimal()), key=_version)


def _version(path: Path) -> int:
    return int(path.name[8:])
