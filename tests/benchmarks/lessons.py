"""The answers of `docs/lessons.md`: each of its commands, and others to compare with, over three seeds.

Run `python tests/benchmarks/lessons.py [LESSON …]`: about 25 minutes for all, on two cores. Those that are not named
keep the answers that they have.
"""

import re
import shlex
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import TRAIN, fit, load, run, save

from mnist_lit.runs.provenance import provenance

__all__ = ["LESSONS"]

SEEDS = (777, 778, 779)
MORE_SEEDS = range(777, 783)  # of "held_out", each with another choice of its 200 images
SCRIPTS = TRAIN.parent / "docs" / "lessons"
FEW = "fit --trainer.max_epochs 30 --data.val_size 59000 --trainer.limit_val_batches 50"

# Of each lesson: what a row of its table is called, and the command whose output it shows.
LESSONS = {
    "learning_rate": {
        rate: f"fit --trainer.max_epochs 1 --model.learning_rate {rate}"
        for rate in ("0.00001", "0.001", "0.01", "0.1", "1")
    },
    "held_out": {"": "fit --trainer.max_epochs 30 --trainer.limit_train_batches 50 --data.val_size 200"},
    "pixels": {"": "pixels.py"},
    "few_images": {
        "100": (
            "fit --trainer.max_epochs 300 --data.val_size 59900 --trainer.limit_val_batches 50 "
            "--trainer.check_val_every_n_epoch 50"
        ),
        "1,000": FEW,
        "10,000": "fit --trainer.max_epochs 3 --data.val_size 50000 --trainer.limit_val_batches 50",
    },
    "by_heart": {
        "0.003": "fit --config debug --trainer.profiler null",
        "0.00001": "fit --config debug --trainer.profiler null --model.learning_rate 0.00001",
    },
    "augmentation": {
        "none": FEW,
        "shift by up to 2 pixels": f"{FEW} --data.shift 2",
        "shift, rotation by up to 12°, size by up to 12 %": (
            f"{FEW} --data.shift 2 --data.rotation 12 --data.scaling 0.12"
        ),
        "rotation by any angle": f"{FEW} --data.rotation 179",
        "mirror half of the images": f"{FEW} --data.flip true",
    },
    "label_noise": {f"{share:.0%}": f"label_noise.py {share}" for share in (0.0, 0.2, 0.5, 0.8)},
}


def main() -> None:
    """Run the commands, print and save."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", metavar="LESSON")
    chosen = parser.parse_args().lessons or LESSONS
    if unknown := {*chosen} - LESSONS.keys():
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(LESSONS)}")
    saved = load("lessons")
    found, made_by = saved.get("lessons", {}), saved.get("runs", {})
    for lesson in chosen:
        found[lesson] = {}
        for row, command in LESSONS[lesson].items():
            if lesson == "held_out":
                answers = [answer(f"{command} --data.split_seed {seed}", seed) for seed in MORE_SEEDS]
            else:
                answers = [answer(command, seed) for seed in SEEDS]
            for name in answers[0]:
                found[lesson].setdefault(row, {})[name] = [each[name] for each in answers]
            print(lesson, row, found[lesson][row], flush=True)
        made_by[lesson] = provenance("cpu")
        save("lessons", {"lessons": found, "runs": made_by})


@cache
def answer(command: str, seed: int) -> dict[str, float]:
    """Return the accuracies that a command prints last, 0-1 by name, and the seconds that it takes."""
    program, *argv = shlex.split(command)
    with TemporaryDirectory() as name:
        if program != "fit":
            done = run(SCRIPTS / program, *argv, f"--seed={seed}", folder=Path(name))
            values = {
                what: float(percent) / 100
                for what, percent in re.findall(r"^(\S.*?) {2,}([\d.]+)%$", done.out, re.MULTILINE)
            }
        else:
            done, results = fit(*argv, f"--seed={seed}", folder=Path(name))
            *_, last = re.findall(r"^epoch.*val/accuracy.*", done.out, re.MULTILINE)
            values = {what: float(value) for what, value in re.findall(r"(\w+/accuracy) ([\d.]+)", last)}
            values["best"] = results["fit"]["best_val_accuracy"]
            if "test" in results:
                values["test"] = results["test"]["accuracy"]
    return values | {"seconds": done.seconds}


if __name__ == "__main__":
    main()
