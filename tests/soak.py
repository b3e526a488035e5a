"""Kill runs at random moments, resume them, and compare the results bit for bit with those of undisturbed runs.

Run `python tests/soak.py [KILLS] [--seed N] [--recipe NAME]`. It prints a line for each run and, at the end, the table
of docs/reliability.md. The exit code is 1 if the results of a run differ: the folder of such a run is kept.

Two runs are trained at a time, with one thread each. A signal does not count if it comes before Python handles signals
or after the run has ended: the run is then started again. A quarter of the SIGKILLs come while a checkpoint is written.
"""

import argparse
import logging
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from conftest import RUN, TRAIN
from helpers.outcomes import differences, outcome, without_prefix
from helpers.server import serving
from test_exact_resume import FLAGS, VARIANTS

from mnist_lit.commands import has_room
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.runs.folders import Run

BASE = [*FLAGS, "--trainer.limit_train_batches=40"]
VARIED = (
    *("default", "no validation", "randomness and schedule", "accumulation", "gradient clipping"),
    *("validations within an epoch", "moving average", "early stopping", "limit of steps within an epoch"),
)
RECIPES = {name: VARIANTS[name] for name in VARIED} | {
    "two processes": ["--trainer.strategy=ddp", "--trainer.devices=2"],
    "fetching data": [],
    **({"search": []} if has_room("studies") else {}),
}
TRIALS = 2
SEARCH = ['--space={"model.learning_rate": [0.002]}']
"""A search of one value: all its trials can be compared."""
SIGNALS = {
    "SIGKILL": [signal.SIGKILL],
    "SIGTERM": [signal.SIGTERM],
    "SIGINT": [signal.SIGINT],
    "SIGINT twice": [signal.SIGINT, signal.SIGINT],
}
WORDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}
TIMEOUT = 300
EARLY, SAVING = 0.15, 0.25
"""Fractions of the kills that come while the program starts, before there is a run, and while it saves a checkpoint."""
ATTEMPTS = 10


class FailedRunError(Exception):
    """A run did not end as expected."""


@dataclass
class Reference:
    """The outcome of an undisturbed run of a recipe, and the seconds until it starts to train and from then on."""

    outcome: Any
    start: float
    work: float


@dataclass
class Case:
    """A run of a recipe in its own folder, which is killed and resumed."""

    recipe: str
    mirror: str
    folder: Path
    data: Path
    kills: list[str] = field(default_factory=list)

    def prepare(self) -> None:
        """Empty the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.kills.clear()
        if self.recipe != "fetching data":
            (self.folder / "data").symlink_to(self.data)

    @property
    def run(self) -> Run:
        """The run of `fit`."""
        return Run(self.folder / RUN.folder)

    @property
    def begun(self) -> Path:
        """A path that exists when the program has started its work."""
        return self.folder / "data/MNIST/raw" if self.recipe == "fetching data" else self.run.config

    @property
    def argv(self) -> list[str]:
        """The command that starts the run or resumes it."""
        if self.recipe == "search":
            return ["search", *BASE, *SEARCH, f"--trials={TRIALS + len(self.kills)}"]  # a killed trial has failed
        if self.run.config.is_file():
            return ["fit", "--ckpt_path=last"]
        mirrors = [f"--data.mirrors=[{self.mirror}]"] if self.recipe == "fetching data" else []
        return ["fit", *BASE, *RECIPES[self.recipe], *mirrors]

    @property
    def finished(self) -> bool:
        """Whether the command has completed its work."""
        best = self.run.folder.with_name("best.yaml")
        return best.is_file() if self.recipe == "search" else "fit" in self.run.results()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the command in a new process group."""
        with (self.folder / "stdout.txt").open("ab") as out, (self.folder / "stderr.txt").open("wb") as err:
            return subprocess.Popen(
                [sys.executable, TRAIN, *self.argv],
                cwd=self.folder,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def wait(self, process: "subprocess.Popen[bytes]") -> tuple[int, list[str]]:
        """Return the exit code of the process and the lines that it has written to stderr, but progress bars."""
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            end_group(process)
            raise FailedRunError(f"{' '.join(self.argv[:2])} hangs after {', '.join(self.kills)}") from None
        err = (self.folder / "stderr.txt").read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
        return code, [line for line in err.splitlines() if line and "B/s" not in line]

    def outcome(self) -> Any:
        """Return the outcome."""
        if self.recipe != "search":  # where a new trial takes the place of a killed one
            if strays := [str(path) for path in self.folder.rglob(".*.part")]:
                raise FailedRunError(f"left behind: {', '.join(strays)}")
            return outcome(self.run)
        found = []
        for name, value in finished_trials(self.run.folder.parent)[:TRIALS]:
            run = Run(self.run.folder.with_name(name))
            found.append(without_prefix(outcome(run), f"{run.folder.relative_to(self.folder)}/"))
            if found[-1]["fit"]["best_val_accuracy"] != value:
                raise FailedRunError(f"the study has {value} of {name}, which has {found[-1]['fit']}")
        return found


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finished_trials(folder: Path) -> list[tuple[str, float | None]]:
    """Return the run and the score of each completed trial of a search."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    trials = optuna.load_study(study_name=folder.name, storage=storage).trials
    return [(trial.user_attrs["run"], trial.value) for trial in trials if trial.state.name == "COMPLETE"]


def wait_until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]") -> float:
    """Wait until something is so, or the process has ended, and return the time."""
    while process.poll() is None and not ready():
        sleep(0.002)
    return monotonic()


def undisturbed(case: Case) -> Reference:
    """Run a recipe without kills."""
    case.prepare()
    since = monotonic()
    process = case.start()
    begun = wait_until(case.begun.exists, process)
    code, lines = case.wait(process)
    if code:
        raise FailedRunError(f"{case.recipe}, undisturbed: exit code {code}: {lines}")
    found = Reference(case.outcome(), begun - since, monotonic() - begun)
    shutil.rmtree(case.folder)
    return found


def wait_for_a_moment(
    case: Case, process: "subprocess.Popen[bytes]", rng: random.Random, reference: Reference, *, may_save: bool
) -> None:
    """Wait until a random moment of a run that was started; if `may_save`, it may be in a save."""
    early, saving, moment = rng.random() < EARLY, rng.random() < SAVING, rng.random()
    if early:
        sleep(0.5 + moment * reference.start)
        return
    if case.begun.exists():
        sleep(reference.start)
    else:
        wait_until(case.begun.exists, process)
    sleep(moment * reference.work)
    if may_save and saving:
        wait_until(lambda: any(case.folder.rglob("checkpoints/.*.part")), process)


def kill(case: Case, kind: str, rng: random.Random, reference: Reference) -> bool:
    """Start the command and kill it at a random moment; return whether that was neither too early nor too late.

    Raises:
        FailedRunError: if the exit code is not that of the signal, or stderr has more than it says and how to resume.
    """
    new = not case.begun.exists()
    process = case.start()
    try:
        wait_for_a_moment(case, process, rng, reference, may_save=kind == "SIGKILL")
        for number, what in enumerate(SIGNALS[kind]):
            sleep(rng.uniform(0, 0.3) if number else 0)
            if process.poll() is None:
                # To all processes, as a terminal or a power cut does; SIGTERM to the first one, as `kill` does.
                (os.kill if what == signal.SIGTERM else os.killpg)(process.pid, what)
        code, lines = case.wait(process)
    finally:
        if process.poll() is None:
            end_group(process)
    again = shlex.join(case.argv) if case.recipe == "search" else "fit --ckpt_path last"
    last, resume = SIGNALS[kind][-1], f"python {TRAIN} {again}"
    killed = last == signal.SIGKILL
    if code == 0 or (case.finished and new):
        return False
    if not killed and not case.begun.exists() and (code == -last or any("KeyboardInterrupt" in line for line in lines)):
        return False
    case.kills.append(kind)
    if code != (-last if killed else 128 + last):
        raise FailedRunError(f"exit code {code} of {kind}: {lines}")
    if not killed and not (lines[:1] and lines[0].startswith(WORDS[last]) and lines[1:] in ([], [resume])):
        raise FailedRunError(f"stderr of {kind}: {lines}")
    return True


def survive(case: Case, rng: random.Random, reference: Reference, kinds: list[str]) -> None:
    """Kill a run several times, and complete it.

    Raises:
        FailedRunError: if its outcome is not that of an undisturbed run.
    """
    for _ in range(ATTEMPTS):
        case.prepare()
        for kind in kinds:
            if not kill(case, kind, rng, reference):
                break
        if case.kills:
            break
    else:
        raise FailedRunError(f"no signal came in time, in {ATTEMPTS} attempts")
    if not case.finished:
        code, lines = case.wait(case.start())
        if code or lines:
            raise FailedRunError(f"exit code {code} after {', '.join(case.kills)}: {lines}")
    if found := differences(case.outcome(), reference.outcome):
        raise FailedRunError(f"differs after {', '.join(case.kills)}: {'; '.join(found)[:500]}")


def plan(seed: int, recipes: Sequence[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the number of each run, its recipe and its kills; all pairs of recipe and kind are about as frequent."""
    rng = random.Random(seed)
    kinds: list[str] = []
    for number in count():
        if not kinds:
            kinds = list(SIGNALS) * len(recipes)
            rng.shuffle(kinds)
        first = kinds.pop()
        more = rng.choices(list(SIGNALS), k=rng.choice([0, 1, 2, 3, 4]))
        yield number, recipes[number % len(recipes)], [first, *more]


def table(kills: list[tuple[str, str, bool]]) -> str:
    """Return a Markdown table of the kills, (recipe, kind, survived): survived of tried."""
    rows = [["", *SIGNALS, "all"], ["---"] * (len(SIGNALS) + 2)]
    for recipe in [*dict.fromkeys(place for place, _, _ in kills), "all"]:
        rows.append([recipe])
        for kind in [*SIGNALS, "all"]:
            tried = [survived for place, what, survived in kills if recipe in {place, "all"} and kind in {what, "all"}]
            rows[-1].append(f"{sum(tried)} of {len(tried)}")
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> int:
    """Kill, resume, compare and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=40)
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--recipe", choices=RECIPES)
    given = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # of curves in two files
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    MNIST.fetch(data := root / "data")
    kills: list[tuple[str, str, bool]] = []
    since = monotonic()
    with serving(delay=0.5) as server, ThreadPoolExecutor(2) as threads:

        def make(recipe: str, name: str) -> Case:
            return Case(recipe, server.url("slow"), root / name, data)

        def refer(recipe: str) -> Reference:
            return undisturbed(make(recipe, f"undisturbed {recipe}"))

        def attempt(planned: tuple[int, str, list[str]]) -> tuple[Case, str] | None:
            number, recipe, kinds = planned
            if len(kills) >= given.kills:
                return None
            case = make(recipe, f"{number}")
            try:
                survive(case, random.Random(f"{given.seed} {number}"), references[recipe], kinds)
            except Exception as error:  # noqa: BLE001  # the other runs continue
                case.kills = case.kills or kinds[:1]
                return case, f"FAILED {type(error).__name__}: {error}\n      kept in {case.folder}"
            shutil.rmtree(case.folder)
            return case, "survived"

        runs = list(
            islice(plan(given.seed, [given.recipe] if given.recipe else [*RECIPES]), given.kills)
        )  # each has at least one kill
        recipes = list(dict.fromkeys(recipe for _, recipe, _ in runs))
        references = dict(zip(recipes, threads.map(refer, recipes), strict=True))
        print(f"{len(recipes)} recipes undisturbed: {monotonic() - since:.0f} s", flush=True)
        for case, result in filter(None, threads.map(attempt, runs)):
            kills += [(case.recipe, kind, result == "survived") for kind in case.kills]
            print(f"{len(kills):4}  {case.recipe}: {', '.join(case.kills)}: {result}", flush=True)
    lost, minutes = sum(not survived for _, _, survived in kills), (monotonic() - since) / 60
    print(f"\n{len(kills)} kills, {lost} of them in runs that did not survive, {minutes:.0f} minutes\n")
    print(table(kills))
    if not lost:
        shutil.rmtree(root)
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
