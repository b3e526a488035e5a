"""Kill runs at random moments, resume them, and compare them bit for bit with runs that nothing disturbed.

Run `python tests/soak.py [KILLS] [--seed N]`. It prints a line for each run, and a table of the kills at the end. The
exit code is 1 if a run did not survive. The folder of such a run is kept, and `--only NUMBER` repeats it: the same
recipe, signals and delays, as nearly as the machine's speed allows. `--write` puts the table into docs/reliability.md.

Two runs go on at a time, each with one thread. A signal that comes before Python handles signals, or after the run has
ended, is too early or too late: it does not count, and the run is started again.
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

from conftest import MNIST, RUN, TRAIN, callback
from outcomes import differences, outcome
from server import serving

from mnist_lit.runs.folders import Run

DOCS = TRAIN.parent / "docs" / "reliability.md"
BASE = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=3",
    "--trainer.limit_train_batches=40",
    "--trainer.limit_val_batches=5",
    "--trainer.limit_test_batches=5",
    "--model.channels=[4,8]",
    "--save_every=7",
]
CHANCE = ["--model.dropout=0.2", "--data.rotation=10", "--data.elastic=0.5"]


RECIPES = {
    "default": [],
    "no validation": ["--data.val_size=0"],
    "one cycle, batch norm, augmentation, dropout": [
        *CHANCE,
        "--model.schedule=one_cycle",
        "--model.batch_norm=true",
    ],
    "accumulated gradients": ["--trainer.accumulate_grad_batches=3"],
    "clipped gradients": ["--trainer.gradient_clip_val=0.5"],
    "validation within epochs": ["--trainer.val_check_interval=15"],
    "averaged weights": [
        *CHANCE,
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
    "space": {"model.learning_rate": [0.002]},  # all trials are equal: each can be compared
}
KINDS = {
    "SIGKILL": [signal.SIGKILL],
    "SIGTERM": [signal.SIGTERM],
    "SIGINT": [signal.SIGINT],
    "SIGINT twice": [signal.SIGINT, signal.SIGINT],
}
WORDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}
TIMEOUT = 300
STARTING = 0.15
"""Share of kills that come while the program starts, before there is a run."""
ATTEMPTS = 10


class Failed(Exception):  # noqa: N818  # what did not survive, no error of this program
    """A run that did not end as it should have."""


@dataclass
class Reference:
    """What a recipe comes to when nothing disturbs it, and how long it takes."""

    outcome: Any
    start: float
    """Seconds until it begins its work."""
    work: float
    """Seconds from there to the end."""


@dataclass
class Case:
    """One run of a recipe, in a folder of its own, that is killed and resumed."""

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
        """The run that `fit` makes."""
        return Run(self.folder / RUN.folder)

    @property
    def begun(self) -> Path:
        """What there is as soon as the work has begun."""
        return self.folder / "data/MNIST/raw" if self.recipe == "fetching data" else self.run.config

    @property
    def argv(self) -> list[str]:
        """The command that begins, or goes on where something is left to be done."""
        if self.recipe == "search":
            return ["search", "--config=search.json", *BASE]
        if self.run.config.is_file():
            return ["fit", "--ckpt_path=last"]
        mirrors = [f"--data.mirrors=[{self.mirror}]"] if self.recipe == "fetching data" else []
        return ["fit", *BASE, *RECIPES[self.recipe], *mirrors]

    @property
    def finished(self) -> bool:
        """Whether all is done."""
        if self.recipe == "search":
            return (self.run.folder.parent / "best.yaml").is_file()
        return "fit" in self.run.results()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the command in a process group of its own."""
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
        """Return how the process has ended: its exit code and what it has said on stderr."""
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            end_group(process)
            raise Failed(f"{' '.join(self.argv[:2])} hangs after {', '.join(self.kills)}") from None
        return code, (self.folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")

    def finish(self) -> None:
        """Run the command to its end, without a word on stderr."""
        code, err = self.wait(self.start())
        if code or (err and self.recipe != "fetching data"):  # which shows how far it is
            raise Failed(f"exit code {code} after {', '.join(self.kills) or 'nothing'}: {err.strip()}")

    def outcome(self) -> Any:
        """Return what has come of it, wherever its folder is."""
        if strays := [str(path) for path in self.folder.rglob(".*.part")]:
            raise Failed(f"left behind: {', '.join(strays)}")
        if self.recipe != "search":
            return without(outcome(self.run), f"{self.folder.resolve()}/")
        trials = finished_trials(self.folder)
        if len(trials) < TRIALS:
            raise Failed(f"the study has {len(trials)} of its trials")
        found = []
        for name, value in trials[:TRIALS]:
            run = Run(self.run.folder.parent / name)
            result = without(outcome(run), f"{self.folder.resolve()}/{RUN.folder.parent}/{name}/")
            if result["fit"]["best_val_accuracy"] != value:
                raise Failed(f"the study has {value} of {name}, which came to {result['fit']}")
            found.append(result)
        return found


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finished_trials(folder: Path) -> list[tuple[str, float]]:
    """Return the run and the score of each trial that came to its end."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal = folder / RUN.folder.parent / "study.journal"
    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name=RUN.folder.parent.name, storage=storage)
    trials = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return [(trial.user_attrs["run"], float(trial.value or 0)) for trial in trials]


def without(value: Any, folder: str) -> Any:
    """Return a value with all paths in it as they are seen from `folder`."""
    if isinstance(value, dict):
        return {without(key, folder): without(part, folder) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(without(part, folder) for part in value)
    return value.replace(folder, "") if isinstance(value, str) else value


def undisturbed(case: Case) -> Reference:
    """Return what a recipe comes to."""
    case.prepare()
    since = monotonic()
    process = case.start()
    while process.poll() is None and not case.begun.exists():
        sleep(0.01)
    begun = monotonic()
    code, err = case.wait(process)
    if code:
        raise Failed(f"{case.recipe}, undisturbed: exit code {code}: {err}")
    found = Reference(case.outcome(), begun - since, monotonic() - begun)
    shutil.rmtree(case.folder)
    return found


def kill(case: Case, kind: str, chance: random.Random, reference: Reference) -> bool:
    """Start the command, and kill it at a random moment; return whether it was neither too early nor too late.

    Raises:
        Failed: if the exit code is not that of the signal, or stderr is not one line.
    """
    early, moment, pause = chance.random() < STARTING, chance.random(), chance.uniform(0, 0.3)
    new = not case.begun.exists()
    process = case.start()
    try:
        if early:
            sleep(0.5 + moment * reference.start)
        else:
            while new and process.poll() is None and not case.begun.exists():
                sleep(0.005)
            sleep(moment * reference.work + (0 if new else reference.start))
        for number, what in enumerate(KINDS[kind]):
            sleep(pause if number else 0)
            if process.poll() is None:
                # As a terminal or a power cut does it, to all processes; SIGTERM as `kill` sends it, to the first.
                (os.kill if what == signal.SIGTERM else os.killpg)(process.pid, what)
        code, err = case.wait(process)
    finally:
        if process.poll() is None:
            end_group(process)
    last = KINDS[kind][-1]
    if code == 0 or (case.finished and new):
        return False
    if last != signal.SIGKILL and not case.begun.exists() and (code == -last or "KeyboardInterrupt" in err):
        return False
    case.kills.append(kind)
    if code != (-last if last == signal.SIGKILL else 128 + last):
        raise Failed(f"exit code {code} of {kind}: {err.strip()}")
    lines = [line for line in err.replace("\r", "\n").splitlines() if line and "B/s" not in line]
    if last != signal.SIGKILL and not (len(lines) == 1 and lines[0].startswith(f"error: {WORDS[last]}")):
        raise Failed(f"stderr of {kind}: {err.strip()}")
    return True


def survive(case: Case, chance: random.Random, reference: Reference, kinds: list[str]) -> None:
    """Kill a run in some ways, one after the other, and let it come to its end.

    Raises:
        Failed: if it does not come to what it would have come to.
    """
    for _ in range(ATTEMPTS):
        case.prepare()
        for kind in kinds:
            if not kill(case, kind, chance, reference):
                break
        if case.kills:
            break
    else:
        raise Failed(f"no signal came in time, in {ATTEMPTS} attempts")
    if not case.finished:
        case.finish()
    if found := differences(case.outcome(), reference.outcome):
        raise Failed(f"differs after {', '.join(case.kills)}: {'; '.join(found)[:500]}")


def plan(seed: int) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the number of each run, its recipe, and how it is killed: each pair of both comes about as often."""
    chance = random.Random(seed)
    kinds: list[str] = []
    for number in count():
        if not kinds:
            kinds = list(KINDS) * len(RECIPES)
            chance.shuffle(kinds)
        first = kinds.pop()
        more = chance.choices(list(KINDS), k=chance.choice([0, 1, 2, 3, 4]))
        yield number, list(RECIPES)[number % len(RECIPES)], [first, *more]


def table(tried: Counter[tuple[str, str]], survived: Counter[tuple[str, str]]) -> str:
    """Return the kills as a Markdown table: survived of tried."""
    rows = [["", *KINDS, "all"]]
    for recipe in [*RECIPES, "all"]:
        row = [recipe]
        for kind in [*KINDS, "all"]:
            places = [place for place in tried if recipe in {"all", place[0]} and kind in {"all", place[1]}]
            counts = (sum(counter[place] for place in places) for counter in (survived, tried))
            row.append(" of ".join(map(str, counts)))
        rows.append(row)
    head, *lines = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *lines])


def main() -> int:
    """Kill, resume, compare, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=40)
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--only", type=int, help="the number of one run to repeat")
    parser.add_argument("--minutes", type=float, default=inf, help="start no more runs after so long")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    given = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # of curves that go on in a second file
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    MNIST.fetch(data := root / "data")
    runs = (0, given.kills) if given.only is None else (given.only, given.only + 1)  # one kill a run, or more
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
            chance = random.Random(f"{given.seed} {number}")
            try:
                survive(case, chance, references[recipe], kinds)
            except Exception as error:  # noqa: BLE001  # whatever it is, the others go on
                told = f"{error}" if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
                repeat = f"python tests/soak.py {given.kills} --seed {given.seed} --only {number}"
                return case, f"{told}\n      kept in {case.folder}; again: {repeat}"
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
