"""Run folders, `runs/<experiment>/version_<n>/`, and the checkpoints in them."""

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

__all__ = ["ROOT", "Run", "find_checkpoint", "find_resumable", "new_run", "run_of"]

ROOT = Path("runs")  # in the current folder
RESULTS, FAILURE = "results.json", "failed.txt"


@dataclass(frozen=True)
class Run:
    """One run's folder and what is where in it."""

    folder: Path

    @property
    def config(self) -> Path:
        """Everything that is needed to repeat the run."""
        return self.folder / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Where `best.ckpt` and `last.ckpt` are."""
        return self.folder / "checkpoints"

    def results(self) -> dict[str, Any]:
        """Return what came of the run so far, by part (`fit`, `test`), from `results.json`.

        Raises:
            ValueError: if the file is not what `record` wrote.
        """
        if not (path := self.folder / RESULTS).exists():
            return {}
        try:
            results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not valid JSON ({error}): mend or remove it") from error
        if not isinstance(results, dict) or not all(isinstance(part, dict) for part in results.values()):
            raise ValueError(f"{path} has other parts than a run's results: mend or remove it")
        return results

    def record(self, **parts: dict[str, Any]) -> None:
        """Put `parts` into `results.json`, each in place of what stood under its name."""
        results = dict(sorted((self.results() | parts).items()))
        write_atomically(self.folder / RESULTS, json.dumps(results, indent=2).encode() + b"\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training in the same folder.

        Raises:
            OSError: if one does.
        """
        path = self.folder / ".lock"
        try:
            with FileLock(path, timeout=0):
                try:
                    yield
                finally:
                    with suppress(PermissionError):  # Windows removes no open file: there, the lock does it when closed
                        path.unlink(missing_ok=True)
        except Timeout as error:
            raise OSError(f"{self.folder} is being trained by another process") from error

    def remove(self) -> None:
        """Remove the folder, and those above it that are empty then."""
        shutil.rmtree(self.folder)
        with suppress(OSError):  # other runs are there
            os.removedirs(self.folder.parent)

    def clear(self) -> None:
        """Remove the results of a shorter training, and what a killed process was about to write."""
        for path in (self.folder / RESULTS, self.folder / FAILURE, *self.folder.rglob(".*.part")):
            path.unlink(missing_ok=True)

    def fail(self, reason: str) -> None:
        """Note that resuming the run would not help, and why."""
        write_atomically(self.folder / FAILURE, f"{reason}\n".encode())

    @property
    def failed(self) -> bool:
        """Whether `fail` was called, after which `--ckpt_path last` passes the run over."""
        return (self.folder / FAILURE).exists()


def new_run(experiment: str) -> Run:
    """Make the next free folder of the experiment; two starts at once get two folders.

    Raises:
        OSError: if the folder cannot be made.
    """
    parent = ROOT / experiment
    parent.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name[8:]) for path in _versions(parent)), default=-1) + 1
    while True:
        try:
            (folder := parent / f"version_{number}").mkdir()
            return Run(folder)
        except FileExistsError:
            number += 1


def find_checkpoint(which: str, experiment: str | None = None) -> Path:
    """Return the path of a checkpoint: `best` or `last` of the newest run (of the experiment) that has one, or a file.

    Raises:
        FileNotFoundError: if there is no such checkpoint; its message says what to do.
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
    """Return the run to resume and its checkpoint: `last` of the newest unfinished run, else as `find_checkpoint` does.

    The newest run is returned where none is unfinished, and no checkpoint where the run has not saved one yet. A run
    that failed for good, as by a loss that is NaN, is passed over.

    Raises:
        FileNotFoundError: if there is no run or no such checkpoint; its message says what to do.
        ValueError: if the checkpoint lies in no run.
    """
    if which == "last":
        if not (runs := _newest_first(experiment)):
            raise FileNotFoundError(f"no run in {ROOT / (experiment or '')}: train one with fit")
        if not (whole := [run for run in runs if not run.failed]):
            raise FileNotFoundError(f"no run to resume: {runs[0].folder} failed, see {runs[0].folder / FAILURE}")
        run = next((run for run in whole if "fit" not in run.results()), whole[0])
        return run, path if (path := run.checkpoints / "last.ckpt").is_file() else None
    path = find_checkpoint(which, experiment)
    if (found := run_of(path)) is None:
        raise ValueError(f"{path} lies in no run: fit can only resume a run in its own folder")
    return found, path


def run_of(checkpoint: Path) -> Run | None:
    """Return the run that a checkpoint lies in, or None where it lies elsewhere."""
    folder = checkpoint.resolve().parent
    run = Run(folder.parent)
    with suppress(ValueError):  # on Windows, of another drive
        run = Run(Path(os.path.relpath(folder.parent)))
    return run if folder.name == run.checkpoints.name and run.config.is_file() else None


def _newest_first(experiment: str | None) -> list[Run]:
    parents = [ROOT / experiment] if experiment else ROOT.glob("*")
    runs = [run for parent in parents for run in map(Run, _versions(parent)) if run.config.is_file()]
    return sorted(runs, key=lambda run: run.config.stat().st_mtime_ns, reverse=True)


def _versions(parent: Path) -> list[Path]:
    return [path for path in parent.glob("version_*") if path.name[8:].isdecimal()]
