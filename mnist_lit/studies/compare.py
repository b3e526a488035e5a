"""Compare experiments, or single runs: their settings, their results, and whether one is better."""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from string import ascii_uppercase
from typing import Any

from jsonargparse import ArgumentError, Namespace

from mnist_lit.commands.flags import Parser
from mnist_lit.datasets.photographs import save_image
from mnist_lit.studies.drawing import draw_accuracies, draw_disagreements
from mnist_lit.studies.recipe import Recipe, read_recipe
from mnist_lit.studies.seeds import STAGES, align, differing_settings
from mnist_lit.studies.statistics import (
    RELEVANT,
    Difference,
    Interval,
    McNemar,
    difference,
    holm_levels,
    images_sd,
    mean_interval,
)
from mnist_lit.system.errors import UsageError, explain_parser_error
from mnist_lit.system.files import write_atomically
from mnist_lit.system.output import say
from mnist_lit.system.program import PROGRAM

__all__ = ["FLAGS", "compare", "parse_recipes"]

FLAGS = {"output": "", "relevant": f"{100 * RELEVANT:g}", "data.data_dir": "data", "trainer.accelerator": "auto"}
"""The flags, with their defaults."""
ACCURACIES = "validation_accuracy", "validation_sd", "test_accuracy", "test_sd", "ensemble_validation_accuracy"
PRINTED = {"name": "{}", "runs": "{}", "failed": "{}", "parameters": "{:,}", "epochs": "{:.3g}", "seconds": "{:.1f}"}
PRINTED |= dict.fromkeys((*ACCURACIES, "calibration_error"), "{:.2%}")
"""The columns of the CSV file that are printed, with their formats."""


def compare(argv: Sequence[str]) -> None:
    """Print in which settings recipes differ, a table of their results, and a verdict from their validation images.

    Raises:
        UsageError: if a flag is wrong, or there are fewer than two recipes.
        OSError, ValueError: if a folder has no finished run, or its runs are not of one recipe.
    """
    config = parse_recipes(argv)
    flags = [f"--data.data_dir={config.data.data_dir}", f"--trainer.accelerator={config.trainer.accelerator}"]
    folders = zip(ascii_uppercase, map(Path, config.recipes), strict=False)
    recipes = {letter: read_recipe(folder, flags) for letter, folder in folders}
    configs, rows = [recipe.config for recipe in recipes.values()], [_row(recipe) for recipe in recipes.values()]
    differing = ([name, *(str(config.get(name)) for config in configs)] for name in differing_settings(configs))
    table = [["", *recipes], *differing]
    for name, form in PRINTED.items():
        table.append([name.replace("_", " "), *("" if row[name] is None else form.format(row[name]) for row in rows)])
    say(*align(table), "", *_verdicts(recipes, float(config.relevant) / 100))
    if config.output:
        _write(Path(config.output), rows, recipes)


def parse_recipes(argv: Sequence[str]) -> Namespace:
    """Return the folders to compare, as `recipes`, and the flags.

    Raises:
        UsageError: if a flag is wrong, or there are fewer than two folders.
    """
    parser = Parser(prog=f"{PROGRAM} compare", exit_on_error=False, allow_abbrev=False)
    parser.add_argument("recipes", type=str, nargs="*")
    for name, default in FLAGS.items():
        parser.add_argument(f"--{name}", type=str, default=default)
    try:
        config: Namespace = parser.parse_args([*argv])
    except ArgumentError as error:
        raise UsageError(explain_parser_error(str(error), [], known=parser.get_defaults().keys())) from error
    if not 2 <= len(config.recipes) <= len(ascii_uppercase):
        raise UsageError(f"compare: give from two to {len(ascii_uppercase)} folders of experiments or runs")
    if not re.fullmatch(r"\d*\.?\d+", config.relevant) or not float(config.relevant):
        raise UsageError(f"--relevant: expected a difference in percentage points, such as 0.1, got {config.relevant}")
    if config.output and Path(config.output).suffix != ".csv":
        raise UsageError(f"--output: {config.output} must end in .csv")
    return config


def _row(recipe: Recipe) -> dict[str, Any]:
    """Return the results of a recipe, by the columns of the CSV file."""
    results, answers = recipe.results.values(), recipe.answers
    ensemble = float(answers.correct.double().mean()) if answers and len(results) > 1 else None
    row: dict[str, Any] = {
        "name": recipe.name,
        "runs": len(results),
        "failed": recipe.failed,
        "seeds": " ".join(map(str, recipe.results)),
        "parameters": recipe.parameters,
        "epochs": fmean(found["epochs"] for found in results),
        "images_per_epoch": recipe.images_per_epoch,
        "candidates": recipe.candidates,
        "seconds": fmean(found["seconds"] for found in results),
        "least_seconds": min(found["seconds"] for found in results),
        "ensemble_validation_accuracy": ensemble,
        "calibration_error": answers.calibration_error if answers else None,
    }
    for stage in STAGES:
        values = [*recipe.accuracies(stage).values()]
        interval = mean_interval(values, recipe.images(stage))
        low, high = interval.ends if interval else (None, None)
        row |= {f"{stage}_accuracy": fmean(values) if values else None, f"{stage}_low": low, f"{stage}_high": high}
        row |= {f"{stage}_sd": stdev(values) if len(values) > 1 else None}
    return row


def _verdicts(recipes: Mapping[str, Recipe], relevant: float) -> list[str]:
    """Return a sentence about each pair of recipes, from their validation images only, and notes about all of them."""
    lines, tests = [], dict[tuple[str, str], Difference | McNemar]()
    answers = {letter: recipe.answers for letter, recipe in recipes.items() if recipe.answers}
    for pair in combinations(answers, 2):
        first, second = (answers[letter] for letter in pair)
        single = [letter for letter in pair if len(recipes[letter].results) == 1]
        if not first.has_same_images(second):
            lines.append(f"{' and '.join(pair)}: no verdict, since their validation images are not the same")
        elif len(single) == 1:
            lines.append(f"{' and '.join(pair)}: no verdict, since {single[0]} is a single run")
        elif single:
            only_first, only_second = first.correct & ~second.correct, second.correct & ~first.correct
            tests[pair] = McNemar(int(only_first.sum()), int(only_second.sum()))
        else:
            tests[pair] = difference(*(recipes[letter].accuracies("validation").values() for letter in pair))
    levels = holm_levels([test.p for test in tests.values()])
    for (pair, test), level in zip(tests.items(), levels, strict=True):
        if isinstance(test, McNemar):
            lines.append(test.describe(*pair, level))
            continue
        lines.append(test.describe(*pair, level, relevant))
        images = 1.96 * images_sd(*(answers[letter].right for letter in pair))
        interval = Interval(test.mean, test.half_width(0.05), images)
        lines[-1] += f"; for other images too, 95 %: ± {100 * interval.half:.2f} ({interval.parts})"
    return lines + _notes(recipes, {letter for pair in tests for letter in pair}, len(tests))


def _notes(recipes: Mapping[str, Recipe], compared: Collection[str], tests: int) -> list[str]:
    """Return what one must know to read the verdicts about the recipes that were compared."""
    lines = []
    if tests > 1:
        lines.append("Holm's correction: the chance that any of these verdicts is wrong is at most 2.5 %")
    for letter, recipe in recipes.items():
        if recipe.failed:
            runs = recipe.failed + len(recipe.results)
            lines.append(f"note: {recipe.failed} of {runs} runs of {letter} failed, and are in none of these figures")
    chosen = {letter: recipes[letter].candidates for letter in sorted(compared)}
    if len({*chosen.values()}) > 1:
        listed = ", ".join(f"{letter} {number}" for letter, number in chosen.items())
        lines.append(
            f"note: the best epoch on these images was selected, which favours the recipe with more epochs ({listed}): "
            "--select last_epoch selects none"
        )
    every = [found["made_by"] for recipe in recipes.values() for found in recipe.results.values()]
    made = [found for found in every if found]  # an earlier version does not say
    names = dict.fromkeys(name for one in made for name in one)
    found = {name: sorted({str(one.get(name)) for one in made}) for name in names}
    return lines + [f"note: the runs differ in {name}: {', '.join(n)}" for name, n in found.items() if len(n) > 1]


def _write(target: Path, rows: Sequence[dict[str, Any]], recipes: Mapping[str, Recipe]) -> None:
    """Write the table, and pictures of the accuracies and of the images that are not classified alike."""
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(target, table.getvalue().encode())
    pairs = [(f"{letter}  {recipe.name}, ", recipe) for letter, recipe in recipes.items()]
    accuracies = {
        name + stage: ([*recipe.accuracies(stage).values()], recipe.images(stage))
        for stage in STAGES
        for name, recipe in pairs
    }
    written = [target, target.with_suffix(".png")]
    draw_accuracies(accuracies).savefig(content := io.BytesIO(), format="png", dpi=150)
    write_atomically(written[1], content.getvalue())
    if answers := {letter: recipe.answers for letter, recipe in recipes.items() if recipe.answers}:
        written.append(target.with_name(f"{target.stem}_images.png"))
        save_image(written[2], draw_disagreements(answers))
    say("", f"written: {', '.join(map(str, written))}")
