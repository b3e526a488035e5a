"""Start programs, one at a time, and measure them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, TemporaryFile
from time import perf_counter
from typing import Any

from mnist_lit.runs.provenance import provenance

__all__ = ["HERE", "TRAIN", "Measured", "benchmark", "fit", "load", "run", "save"]

HERE = Path(__file__).parent
TRAIN = HERE.parent.parent / "train.py"


@dataclass(frozen=True)
class Measured:
    """What a program took and printed."""

    seconds: float
    megabytes: float
    """Its largest resident size."""
    out: str


def run(*argv: str | Path, folder: Path) -> Measured:
    """Run a Python program in `folder` to its end."""
    with TemporaryFile() as out:
        start = perf_counter()
        process = subprocess.Popen([sys.executable, *map(str, argv)], cwd=folder, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - start
        if status:
            raise SystemExit(f"{argv} failed with status {status}")
        out.seek(0)
        return Measured(seconds, usage.ru_maxrss / 1024, out.read().decode())


def fit(*flags: str, folder: Path) -> tuple[Measured, dict[str, Any]]:
    """Train with `fit`, and return what the command took, and the results of the run."""
    measured = run(TRAIN, "fit", *flags, folder=folder)
    newest = max(folder.glob("runs/*/version_*/results.json"), key=lambda path: path.stat().st_mtime_ns)
    return measured, json.loads(newest.read_text(encoding="utf-8"))


def benchmark(measure: Callable[[Path, int], dict[str, Any]], repeats: int) -> None:
    """Measure in an empty folder as often as the command line says; print medians and ranges, and save all beside it.

    The results have rows of values by their unit, and numbers as ratios.
    """
    with TemporaryDirectory() as name:
        found = measure(Path(name), int(sys.argv[1]) if len(sys.argv) > 1 else repeats)
    for unit, rows in found.items():
        for what, values in rows.items():
            if isinstance(values, list):
                spread = f"({min(values):.3f} to {max(values):.3f}, n={len(values)})"
                print(f"{what:<44} {median(values):8.3f}   {spread} {unit}")
            else:
                print(f"{what:<44} {values:8.3f}   {unit}")
    save(Path(sys.argv[0]).stem, found)


def load(name: str) -> dict[str, Any]:
    """Return a benchmark's saved result, empty if there is none."""
    path = HERE / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def save(name: str, content: dict[str, Any]) -> None:
    """Write a benchmark's result beside it, with the commit, the libraries and the machine that it was made by."""
    found = {"made_by": provenance("cpu"), **content}
    (HERE / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
