"""Kill runs at random moments, resume them, and compare the results bit for bit with those of undisturbed runs.

Run `python tests/soak.py [KILLS] [--seed N]`. It prints one line per run and, at the end, a table of the kills. The
exit code is 1 if the results of a run differ. The folder of such a run is kept, and `--only NUMBER` repeats it: with
the same recipe, signals and delays, as closely as the speed of the machine allows. `--write` puts the table into
docs/reliability.md.

Two runs are trained at a time, with one thread each. A signal does not count if it comes before Python handles signals
or after the run has ended: the run is then started again.
"""

import argparse
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice
from math import inf
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from conftest import RUN, TRAIN, callback
from helpers.outcomes import differences, outcome, without_prefix
from helpers.server import serving

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.runs.folders import Run

DOCS = TRAIN.parent / "docs" / "reliability.md"
BASE = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=3",
    "--trainer.limit_train_batches=40",
    "--trainer.limit_val_batches=5",
    "--trainer.limit_test_batches=5",
    "--model.channels=[4,8]",
]
RANDOM = ["--model.dropout=0.2", "--data.rotation=10", "--data.elastic=0.5"]
RECIPES = {
    "default": [],
    "no validation": ["--data.val_size=0"],
    "one cycle, batch norm, augmentation, dropout": [
        *RANDOM,
        "--model.schedule=one_cycle",
        "--model.batch_norm=true",
    ],
    "accumulated gradients": ["--trainer.accumulate_grad_batches=3"],
    "clipped gradients": ["--trainer.gradient_clip_val=0.5"],
    "validation within epochs": ["--trainer.val_check_interval=15"],
    "averaged weights": [
        *RANDOM,
        "--model.batch_norm=true",
        callback("EMAWeightAveraging", decay=0.9, update_starting_at_step=8),
    ],
    "early stopping": [
        "--trainer.max_epochs=8",
        callback("EarlyStopping", monitor="val/accuracy", mode="max", min_delta=0.1, patience=1),
    ],
    "steps that end within an epoch": ["--trainer.max_steps=70"],
    "two processes": ["--trainer.strategy=ddp", "--trainer.devices=2"],
    "fetching data": [],
    "search": [],
}
TRIALS = 2
SEARCH = {
    "experiment": "baseline",
    "trials": TRIALS,
    "space": {"model.learning_rate": [0.002]},  # one value: all trials can be compared
}
SIGNALS = {
    "SIGKILL": [signal.SIGKILL],
    "SIGTERM": [signal.SIGTERM],
    "SIGINT": [signal.SIGINT],
    "SIGINT twice": [signal.SIGINT, signal.SIGINT],
}
WORDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}
TIMEOUT = 300
EARLY = 0.15
"""Fraction of the kills that come while the program starts, before there is a run."""
ATTEMPTS = 10


class FailedRunError(Exception):
    """A run did not end as expected."""


@dataclass
class Reference:
    """The outcome of an undisturbed run of a recipe, and its times."""

    outcome: Any
    start: float
    """Seconds until it starts to train."""
    work: float
    """Seconds from then to the end."""


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
        (self.folder / "search.json").write_text(json.dumps(SEARCH), encoding="utf-8")

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
            return ["search", "--config=search.json", *BASE]
        if self.run.config.is_file():
            return ["fit", "--ckpt_path=last"]
        mirrors = [f"--data.mirrors=[{self.mirror}]"] if self.recipe == "fetching data" else []
        return ["fit", *BASE, *RECIPES[self.recipe], *mirrors]

    @property
    def finished(self) -> bool:
        """Whether the command has completed its work."""
        if self.recipe == "search":
            return (self.run.folder.parent / "best.yaml").is_file()
        return "fit" in self.run.results()

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

    def wait(self, process: "subprocess.Popen[bytes]") -> tuple[int, str]:
        """Return the exit code of the process and what it has written to stderr."""
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            end_group(process)
            raise FailedRunError(f"{' '.join(self.argv[:2])} hangs after {', '.join(self.kills)}") from None
        return code, (self.folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")

    def finish(self) -> None:
        """Run the command to its end, and expect nothing on stderr."""
        code, err = self.wait(self.start())
        if code or (err and self.recipe != "fetching data"):  # which has a progress bar
            raise FailedRunError(f"exit code {code} after {', '.join(self.kills) or 'nothing'}: {err.strip()}")

    def outcome(self) -> Any:
        """Return the outcome."""
        if self.recipe != "search":  # which does not resume a killed trial: a new one takes its place
            if strays := [str(path) for path in self.folder.rglob(".*.part")]:
                raise FailedRunError(f"left behind: {', '.join(strays)}")
            return outcome(self.run)
        trials = finished_trials(self.folder)
        if len(trials) < TRIALS:
            raise FailedRunError(f"the study has {len(trials)} of its trials")
        found = []
        for name, value in trials[:TRIALS]:
            run = Run(self.run.folder.parent / name)
            result = without_prefix(outcome(run), f"{run.folder.relative_to(self.folder)}/")
            if result["fit"]["best_val_accuracy"] != value:
                raise FailedRunError(f"the study has {value} of {name}, which has {result['fit']}")
            found.append(result)
        return found


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finished_trials(folder: Path) -> list[tuple[str, float]]:
    """Return the run and the score of each completed trial."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal = folder / RUN.folder.parent / "study.journal"
    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name=RUN.folder.parent.name, storage=storage)
    trials = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return [(trial.user_attrs["run"], float(trial.value or 0)) for trial in trials]


def undisturbed(case: Case) -> Reference:
    """Run a recipe without kills."""
    case.prepare()
    since = monotonic()
    process = case.start()
    while process.poll() is None and not case.begun.exists():
        sleep(0.01)
    begun = monotonic()
    code, err = case.wait(process)
    if code:
        raise FailedRunError(f"{case.recipe}, undisturbed: exit code {code}: {err}")
    found = Reference(case.outcome(), begun - since, monotonic() - begun)
    shutil.rmtree(case.folder)
    return found


def kill(case: Case, kind: str, rng: random.Random, reference: Reference) -> bool:
    """Start the command and kill it at a random moment; return whether that was neither too early nor too late.

    Raises:
        FailedRunError: if the exit code is not that of the signal, or stderr is not one line.
    """
    early, moment, pause = rng.random() < EARLY, rng.random(), rng.uniform(0, 0.3)
    new = not case.begun.exists()
    process = case.start()
    try:
        if early:
            sleep(0.5 + moment * reference.start)
        else:
            while new and process.poll() is None and not case.begun.exists():
                sleep(0.005)
            sleep(moment * reference.work + (0 if new else reference.start))
        for number, what in enumerate(SIGNALS[kind]):
            sleep(pause if number else 0)
            if process.poll() is None:
                # To all processes, as a terminal or a power cut does; SIGTERM to the first one, as `kill` does.
                (os.kill if what == signal.SIGTERM else os.killpg)(process.pid, what)
        code, err = case.wait(process)
    finally:
        if process.poll() is None:
            end_group(process)
    last = SIGNALS[kind][-1]
    if code == 0 or (case.finished and new):
        return False
    if last != signal.SIGKILL and not case.begun.exists() and (code == -last or "KeyboardInterrupt" in err):
        return False
    case.kills.append(kind)
    if code != (-last if last == signal.SIGKILL else 128 + last):
        raise FailedRunError(f"exit code {code} of {kind}: {err.strip()}")
    lines = [line for line in err.replace("\r", "\n").splitlines() if line and "B/s" not in line]
    if last != signal.SIGKILL and not (len(lines) == 1 and lines[0].startswith(f"error: {WORDS[last]}")):
        raise FailedRunError(f"stderr of {kind}: {err.strip()}")
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
        case.finish()
    if found := differences(case.outcome(), reference.outcome):
        raise FailedRunError(f"differs after {', '.join(case.kills)}: {'; '.join(found)[:500]}")


def plan(seed: int) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the number of each run, its recipe and its kills; all pairs of recipe and kind are about as frequent."""
    rng = random.Random(seed)
    kinds: list[str] = []
    for number in count():
        if not kinds:
            kinds = list(SIGNALS) * len(RECIPES)
            rng.shuffle(kinds)
        first = kinds.pop()
        more = rng.choices(list(SIGNALS), k=rng.choice([0, 1, 2, 3, 4]))
        yield number, list(RECIPES)[number % len(RECIPES)], [first, *more]


def table(tried: Counter[tuple[str, str]], survived: Counter[tuple[str, str]]) -> str:
    """Return a Markdown table of the kills: survived of tried."""
    rows = [["", *SIGNALS, "all"]]
    for recipe in [*RECIPES, "all"]:
        row = [recipe]
        for kind in [*SIGNALS, "all"]:
            places = [place for place in tried if recipe in {"all", place[0]} and kind in {"all", place[1]}]
            counts = (sum(counter[place] for place in places) for counter in (survived, tried))
            row.append(" of ".join(map(str, counts)))
        rows.append(row)
    head, *lines = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *lines])


def main() -> int:
    """Kill, resume, compare and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=40)
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--only", type=int, help="number of a run to repeat")
    parser.add_argument("--minutes", type=float, default=inf, help="start no runs after this time")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    given = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # of curves in two files
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    MNIST.fetch(data := root / "data")
    runs = (0, given.kills) if given.only is None else (given.only, given.only + 1)  # each has at least one kill
    cases = list(islice(plan(given.seed), *runs))
    tried: Counter[tuple[str, str]] = Counter()
    survived: Counter[tuple[str, str]] = Counter()
    since = monotonic()
    with serving(delay=0.5) as server, ThreadPoolExecutor(2) as threads:
        mirror = server.url("slow")

        def refer(recipe: str) -> Reference:
            return undisturbed(Case(recipe, mirror, root / f"undisturbed {recipe}", data))

        recipes = list(dict.fromkeys(recipe for _, recipe, _ in cases))
        references = dict(zip(recipes, threads.map(refer, recipes), strict=True))
        print(f"{len(recipes)} recipes undisturbed: {monotonic() - since:.0f} s", flush=True)

        def attempt(planned: tuple[int, str, list[str]]) -> tuple[Case, str] | None:
            number, recipe, kinds = planned
            if tried.total() >= given.kills or monotonic() - since > 60 * given.minutes:
                return None
            case = Case(recipe, mirror, root / f"{number}", data)
            rng = random.Random(f"{given.seed} {number}")
            try:
                survive(case, rng, references[recipe], kinds)
            except Exception as error:  # noqa: BLE001  # the other runs continue
                message = f"{error}" if isinstance(error, FailedRunError) else f"{type(error).__name__}: {error}"
                repeat = f"python tests/soak.py {given.kills} --seed {given.seed} --only {number}"
                return case, f"{message}\n      kept in {case.folder}; again: {repeat}"
            shutil.rmtree(case.folder)
            return case, ""

        for planned, ended in zip(cases, threads.map(attempt, cases), strict=True):
            if ended is None:
                break
            case, failure = ended
            places = Counter((case.recipe, kind) for kind in case.kills or planned[2][:1])
            tried += places
            survived += Counter() if failure else places
            result = f"FAILED {failure}" if failure else "survived"
            kinds = ", ".join(case.kills)
            print(f"{tried.total():4} {planned[0]:4}  {case.recipe}: {kinds}: {result}", flush=True)
    lost, seconds = tried.total() - survived.total(), monotonic() - since
    print(f"\n{tried.total()} kills, {lost} of them in runs that did not survive, {seconds / 60:.0f} minutes\n")
    print(found := table(tried, survived))
    if given.write:
        text = re.sub(
            r"(?<=<!-- soak -->\n).*?(?=<!-- end -->)",
            lambda _: f"{found}\n",
            DOCS.read_text(encoding="utf-8"),
            flags=re.DOTALL,
        )
        DOCS.write_text(text, encoding="utf-8")
    if lost:
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
