"""Write what the benchmarks have saved into the tables of the README and of the benchmarks' own.

Run `python tests/benchmarks/tables.py` after a benchmark. A table stands between `<!-- NAME -->` and `<!-- end -->`.
"""

import csv
import re
from collections.abc import Callable, Iterator
from functools import partial
from math import hypot, sqrt
from statistics import mean, median, stdev

from measure import HERE, TRAIN, load
from scipy.stats import ttest_1samp

__all__ = ["FILES", "filled"]

DOCS = TRAIN.parent / "docs"
FILES = (
    TRAIN.parent / "README.md",
    TRAIN.parent / "README.ko.md",
    DOCS / "images.md",
    DOCS / "lessons.md",
    DOCS / "scaling.md",
    HERE / "README.md",
)
Rows = Iterator[tuple[str, ...]]


HEAD = (
    "recipe",
    "parameters",
    "images seen",
    "tested",
    "training time (fastest run)",
    "test accuracy, mean ± sd",
    "95 % interval of the mean, other seeds and images",
)


def recipes() -> Rows:
    """Yield what each recipe for MNIST comes to, then the peer."""
    yield from compared("recipes")
    peer = load("seconds")
    accuracy, took = (peer[key]["one-epoch recipe"] for key in ("test_accuracy", "seconds"))
    low, high = ttest_1samp(accuracy, 0).confidence_interval() if len(accuracy) > 1 else (accuracy[0], accuracy[0])
    half = hypot((high - low) / 2, 1.96 * sqrt(mean(accuracy) * (1 - mean(accuracy)) / 10_000))  # seeds and images
    yield (
        "one-epoch recipe",
        f"{peer['peer']['parameters']:,}",
        "1 × 60,000",
        "the last step",
        _time(min(took)),
        f"{mean(accuracy):.2%} ± {stdev(accuracy):.2%} ({len(accuracy)} seeds)",
        f"{mean(accuracy) - half:.2%} to {mean(accuracy) + half:.2%}",
    )


def compared(name: str) -> Rows:
    """Yield what each recipe in a table that `compare` has written comes to."""
    yield HEAD
    with (DOCS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            epochs = round(float(row["epochs"]))
            test, sd, low, high = (float(row[f"test_{key}"]) for key in ("accuracy", "sd", "low", "high"))
            yield (
                f"`{row['name'].rpartition('/')[2]}`",
                f"{int(row['parameters']):,}",
                f"{epochs} × {int(row['images_per_epoch']):,}",
                f"best of {row['candidates']} epochs" if int(row["candidates"]) > 1 else "the last step",
                _time(float(row["least_seconds"])),
                f"{test:.2%} ± {sd:.2%} ({row['runs']} seeds)",
                f"{low:.2%} to {high:.2%}",
            )


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"


def choices(benchmark: str) -> Rows:
    """Yield what each choice of a recipe brings; the first is the recipe itself."""
    saved = load(benchmark)
    seeds = len(next(iter(saved["accuracy"].values())))
    yield "recipe", f"validation accuracy, mean ± sd of {seeds} seeds", "seconds, with validation"
    for name, accuracy in saved["accuracy"].items():
        yield name, f"{mean(accuracy):.2%} ± {stdev(accuracy):.2%}", f"{median(saved['seconds'][name]):.1f}"


def seconds(name: str) -> Rows:
    """Yield the medians and ranges of a benchmark, and their ratios."""
    saved = load(name)
    yield "", "median", "range"
    for what, values in saved["seconds"].items():
        yield what, f"{median(values):.2f} s", f"{min(values):.2f} to {max(values):.2f} s, n={len(values)}"
    for what, values in saved.get("megabytes", {}).items():
        yield f"{what}: largest resident size", f"{median(values):.0f} MB", f"n={len(values)}"
    for what, ratio in saved["ratios"].items():
        yield f"**{what}**", f"**{ratio:.2f}**", ""


def scaling() -> Rows:
    """Yield the images a second in one process and in two."""
    rates = load("scaling")["images_per_second"]
    yield "", "images a second", "range", "relative to 1 process, 1 thread"
    for name, values in rates.items():
        one = median(rates[f"{name.partition(',')[0]}, 1 process, 1 thread"])
        yield name, f"{median(values):,.0f}", f"{min(values):,.0f} to {max(values):,.0f}", f"{median(values) / one:.2f}"


def lesson(name: str, head: str) -> Rows:
    """Yield the accuracies of a lesson's commands."""
    yield head, "training accuracy", "validation accuracy"
    for row, found in load("lessons")["lessons"][name].items():
        yield row, *(_mean_sd(found[f"{stage}/accuracy"]) for stage in ("train", "val"))


def held_out() -> Rows:
    """Yield the accuracy on the images by which the epoch was selected, and on other images."""
    (found,) = load("lessons")["lessons"]["held_out"].values()
    yield "", "accuracy"
    yield "the best epoch, on the 200 images by which it was selected", _mean_sd(found["best"])
    yield "the last epoch, on the same 200 images", _mean_sd(found["val/accuracy"])
    yield "the best epoch, on 10,000 other images", _mean_sd(found["test"])


def pixels() -> Rows:
    """Yield the accuracy for each scale of the pixels."""
    (found,) = load("lessons")["lessons"]["pixels"].values()
    yield "pixels", "validation accuracy"
    for name, values in found.items():
        if name != "seconds":
            yield name, _mean_sd(values)


def _mean_sd(values: list[float]) -> str:
    return f"{mean(values):.1%} ± {stdev(values):.1%}"


TABLES: dict[str, tuple[str, Callable[[], Rows]]] = {
    "learning_rate": ("lessons", partial(lesson, "learning_rate", "learning rate")),
    "held_out": ("lessons", held_out),
    "pixels": ("lessons", pixels),
    "few_images": ("lessons", partial(lesson, "few_images", "training images")),
    "by_heart": ("lessons", partial(lesson, "by_heart", "learning rate")),
    "augmentation": ("lessons", partial(lesson, "augmentation", "augmentation")),
    "label_noise": ("lessons", partial(lesson, "label_noise", "wrong labels")),
    "scaling": ("scaling", scaling),
    "recipes": ("recipes", recipes),
    "cifar10": ("cifar10", partial(compared, "cifar10")),
    "choices": ("choices", partial(choices, "choices")),
    "cifar10_choices": ("cifar10_choices", partial(choices, "cifar10_choices")),
    "epoch": ("epoch", partial(seconds, "epoch")),
    "seconds": ("seconds", partial(seconds, "seconds")),
}
"""For each table, the benchmark that it is of, and its rows."""


def origin(table: str, benchmark: str) -> str:
    """Return a sentence about the code and the machine that a table was measured with."""
    saved = load(benchmark)
    runs = saved.get("runs", {benchmark: saved["made_by"]})
    if benchmark == "recipes":
        runs["one-epoch recipe"] = load("seconds")["made_by"]
    if benchmark == "lessons":  # which has a table for each
        runs = {table: runs[table]}
    found: dict[str, list[str]] = {}
    for name, made_by in runs.items():
        commit = f"commit {made_by['commit'][:7]}" if made_by["commit"] else f"version {made_by['mnist_lit']}"
        found.setdefault(f"{commit}, torch {made_by['torch']}, {made_by['processor']}", []).append(f"`{name}`")
    listed = [how if len(found) == 1 else f"{', '.join(names)}: {how}" for how, names in found.items()]
    return f"*Measured with {'; '.join(listed)}.*"


def filled(text: str) -> str:
    """Return a Markdown text with its tables written again."""

    def table(place: re.Match[str]) -> str:
        benchmark, rows = TABLES[place[1]]
        head, *others = ("| " + " | ".join(cells) + " |" for cells in rows())
        line = "|" + "---|" * (head.count(" | ") + 1)
        return "\n".join([f"<!-- {place[1]} -->", head, line, *others, "", origin(place[1], benchmark), "<!-- end -->"])

    return re.sub(rf"<!-- ({'|'.join(TABLES)}) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def main() -> None:
    """Write the tables."""
    for path in FILES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
