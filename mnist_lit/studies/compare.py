"""Compare experiments, or single runs: their settings, their results, and whether one is better."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from jsonargparse import ArgumentError, Namespace
from PIL import Image

from mnist_lit.commands.flags import Parser
from mnist_lit.studies.recipe import Answers, Recipe, differing_settings, read_recipe
from mnist_lit.studies.statistics import (
    Difference,
    describe_difference,
    describe_mcnemar,
    difference,
    holm_levels,
    mcnemar,
    mean_interval,
)
from mnist_lit.system.errors import UsageError, explain_parser_error
from mnist_lit.system.files import write_atomically
from mnist_lit.system.program import PROGRAM
from mnist_lit.training.drawings import draw_accuracies, draw_images

__all__ = ["FLAGS", "compare", "parse_recipes"]

FLAGS = {"output": "", "data.data_dir": "data", "trainer.accelerator": "auto"}
"""Their defaults."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_IMAGES, COLUMNS = 32, 8  # of the picture of images
OF_IMAGES = ("data.dataset", "data.image_size", "data.split_seed", "data.val_size", "trainer.limit_val_batches")
"""Settings that choose the validation images."""
Row = dict[str, Any]


def compare(argv: Sequence[str]) -> None:
    """Print in which settings recipes differ, a table of their results, and a verdict from their validation images.

    Raises:
        UsageError: if a flag is wrong, or there are fewer than two recipes.
        OSError, ValueError: if a folder has no finished run, or its runs are not of one recipe.
    """
    config = parse_recipes(argv)
    flags = [f"--data.data_dir={config.data.data_dir}", f"--trainer.accelerator={config.trainer.accelerator}"]
    pairs = zip(LETTERS, config.recipes, strict=False)
    recipes = {letter: read_recipe(Path(folder), flags) for letter, folder in pairs}
    rows = [_row(letter, recipe) for letter, recipe in recipes.items()]
    print("\n".join([*_format_settings(recipes), "", *_format_table(rows), "", *_verdicts(recipes)]))
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
    if not 2 <= len(config.recipes) <= len(LETTERS):
        raise UsageError(f"compare: give from two to {len(LETTERS)} folders of experiments or runs")
    if config.output and Path(config.output).suffix != ".csv":
        raise UsageError(f"--output: {config.output} must end in .csv")
    return config


def _format_settings(recipes: Mapping[str, Recipe]) -> list[str]:
    """Return lines with the settings in which recipes differ."""
    if not (names := differing_settings([recipe.config for recipe in recipes.values()])):
        return ["the settings are the same"]
    columns = [["", *names]]
    columns += [[letter, *(str(recipe.config.get(name)) for name in names)] for letter, recipe in recipes.items()]
    return _align(columns, right=False)


def _row(letter: str, recipe: Recipe) -> Row:
    """Return the results of a recipe, by the columns of the table."""
    row: Row = {
        "letter": letter,
        "name": recipe.name,
        "runs": len(recipe.results),
        "seeds": " ".join(map(str, recipe.results)),
        "parameters": recipe.parameters,
        "epochs": recipe.mean("epochs"),
        "images_per_epoch": recipe.images_per_epoch,
        "selects": recipe.selects,
        "seconds": recipe.mean("seconds"),
        "least_seconds": min(results["fit"]["seconds"] for results in recipe.results.values()),
    }
    for name, values in (("validation", [*recipe.validation.values()]), ("test", recipe.test)):
        low, high = mean_interval(values) or (None, None)
        row[f"{name}_accuracy"] = fmean(values) if values else None
        row |= {f"{name}_sd": stdev(values) if len(values) > 1 else None, f"{name}_low": low, f"{name}_high": high}
    answers = recipe.answers
    return row | {
        "ensemble_validation_accuracy": answers.ensemble_accuracy if answers and len(recipe.results) > 1 else None,
        "calibration_error": answers.calibration_error if answers else None,
    }


def _format_table(rows: Sequence[Row]) -> list[str]:
    """Return lines with the results of all recipes."""

    def accuracy(row: Row, name: str) -> str:
        mean, sd = row[f"{name}_accuracy"], row[f"{name}_sd"]
        return "" if mean is None else f"{mean:.2%}" if sd is None else f"{mean:.2%} ± {sd:.2%}"

    columns = [
        ["", *(row["letter"] for row in rows)],
        ["", *(row["name"] for row in rows)],
        ["runs", *(str(row["runs"]) for row in rows)],
        ["parameters", *(f"{row['parameters']:,}" for row in rows)],
        ["epochs", *(f"{row['epochs']:.3g}" for row in rows)],
        ["seconds", *(f"{row['seconds']:.1f}" for row in rows)],
        ["validation", *(accuracy(row, "validation") for row in rows)],
        ["test", *(accuracy(row, "test") for row in rows)],
        ["ensemble, validation", *(_percent(row["ensemble_validation_accuracy"]) for row in rows)],
        ["calibration error", *(_percent(row["calibration_error"]) for row in rows)],
    ]
    note = "accuracies: mean ± standard deviation over runs"
    calibration = "calibration error: on the validation images, to which the temperature was fitted"
    return [*_align(columns), f"{note}; {calibration}"]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _align(columns: Sequence[Sequence[str]], *, right: bool = True) -> list[str]:
    """Return the lines of a table; columns are aligned on the left, or all but the first two on the right."""
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for cells in zip(*columns, strict=True):
        padded = [
            f"{cell:>{width}}" if right and number > 1 else f"{cell:<{width}}"
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def _verdicts(recipes: Mapping[str, Recipe]) -> list[str]:
    """Return a sentence about each pair of recipes, from their validation images only."""
    lines: list[str] = []
    over_seeds: dict[tuple[str, str], tuple[Difference, str]] = {}
    single: dict[tuple[str, str], tuple[int, int]] = {}
    for pair in combinations(recipes, 2):
        first, second = (recipes[letter] for letter in pair)
        answers = _comparable_answers(*pair, first, second)
        if isinstance(answers, str):
            lines.append(f"{pair[0]} and {pair[1]}: no verdict, {answers}")
        elif len(first.results) == 1:
            single[pair] = _count_only(*answers)
        else:
            over_seeds[pair] = difference(first.validation, second.validation), _format_image_error(*answers)
    p_values = [found.p for found, _ in over_seeds.values()] + [mcnemar(*counts) for counts in single.values()]
    levels = iter(holm_levels(p_values))
    for pair, (found, image_error) in over_seeds.items():
        lines.append(f"{describe_difference(*pair, found, next(levels))}; {image_error}")
    lines += [describe_mcnemar(*pair, *counts, next(levels)) for pair, counts in single.items()]
    if len(p_values) > 1:
        lines.append(
            "with Holm's correction: the probability that any 'better' is false on these images is at most 5 %"
        )
    judged = {letter for pair in (*over_seeds, *single) for letter in pair}
    return lines + _caution([recipes[letter] for letter in judged])


def _format_image_error(first: Answers, second: Answers) -> str:
    """Return how much the difference of two recipes depends on the choice of the validation images."""
    differences = second.accuracies - first.accuracies  # (N,)
    error = 1.96 * float(differences.std()) / sqrt(len(differences))
    return f"on other images than these {len(differences):,}, add ±{100 * error:.2f} (95 %)"


def _comparable_answers(one: str, other: str, first: Recipe, second: Recipe) -> tuple[Answers, Answers] | str:
    """Return the answers of two recipes to the same validation images, or why they cannot be compared."""
    if not first.answers:
        return f"since {one} {first.reason}"
    if not second.answers:
        return f"since {other} {second.reason}"
    if not first.answers.has_same_images(second.answers):
        limited = first.config.trainer.limit_val_batches is not None
        chosen_by = (*OF_IMAGES, "data.batch_size") if limited else OF_IMAGES
        differing = ", ".join(name for name in differing_settings([first.config, second.config]) if name in chosen_by)
        return f"since their validation images are not the same ({differing or 'the data have changed'})"
    runs = len(first.results), len(second.results)
    if min(runs) == 1 < max(runs):
        return f"since {one if runs[0] == 1 else other} is a single run: train more with fit --seeds"
    return first.answers, second.answers


def _caution(recipes: Sequence[Recipe]) -> list[str]:
    """Return a line if some recipes, but not all, select an epoch on the validation images."""
    if len({recipe.selects for recipe in recipes}) < 2:
        return []
    note = "note: for some, the best of several epochs was selected on these images, which raises its accuracy a little"
    return [note]


def _count_only(first: Answers, second: Answers) -> tuple[int, int]:
    """Return how many images only the first, and only the second, classifies correctly."""
    return int((first.correct & ~second.correct).sum()), int((second.correct & ~first.correct).sum())


def _write(target: Path, rows: Sequence[Row], recipes: Mapping[str, Recipe]) -> None:
    """Write the table, and pictures of the accuracies and of the images that are not classified alike."""
    table = io.StringIO()
    fields = [name for name in rows[0] if name != "letter"]
    writer = csv.DictWriter(table, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(target, table.getvalue().encode())
    print(f"\ntable: {target}")
    names = [f"{letter}  {recipe.name}" for letter, recipe in recipes.items()]
    found = {
        "validation accuracy": [[*recipe.validation.values()] for recipe in recipes.values()],
        "test accuracy": [recipe.test for recipe in recipes.values()],
    }
    panels = {
        f"{title}: a dot for each run, a bar for the 95 % interval of the mean": [
            (values, mean_interval(values)) for values in accuracies
        ]
        for title, accuracies in found.items()
    }
    _save(draw_accuracies(names, panels), target.with_suffix(".png"), "accuracies")
    if (picture := _draw_differences(recipes)) is None:
        target.with_name(f"{target.stem}_images.png").unlink(missing_ok=True)  # of an earlier comparison
        print("no image that one classifies correctly and another does not, on the same validation images")
    else:
        _save(picture, target.with_name(f"{target.stem}_images.png"), "classified differently")


def _save(picture: Image.Image, path: Path, what: str) -> None:
    content = io.BytesIO()
    picture.save(content, "png")
    write_atomically(path, content.getvalue())
    print(f"{what}: {path}")


def _draw_differences(recipes: Mapping[str, Recipe]) -> Image.Image | None:
    """Draw the validation images that some recipes classify correctly and others do not, the worst first.

    Those come first whose label's probability differs most. Recipes with other validation images than the first one
    that has any are left out. Several runs of a recipe answer together, by their mean probability.
    """
    validated = {letter: recipe.answers for letter, recipe in recipes.items() if recipe.answers}
    if not validated:
        return None
    first = next(iter(validated.values()))
    alike = {letter: answers for letter, answers in validated.items() if first.has_same_images(answers)}
    correct = torch.stack([answers.correct for answers in alike.values()])  # (recipes, N)
    chosen = (correct.any(dim=0) & ~correct.all(dim=0)).nonzero()[:, 0]
    if not len(chosen):
        return None
    labels = first.labels[chosen]
    found = torch.stack([answers.joint[chosen] for answers in alike.values()])  # (recipes, images, K)
    of_label = found.gather(2, labels.expand(len(alike), -1)[..., None])[..., 0]  # (recipes, images)
    order = (of_label.amax(dim=0) - of_label.amin(dim=0)).argsort(descending=True, stable=True)[:MAX_IMAGES]
    classes = next(iter(recipes.values())).classes
    captions = []
    for i in order.tolist():
        probabilities, predictions = found[:, i].max(dim=1)
        answers = zip(alike, predictions.tolist(), probabilities.tolist(), strict=True)
        lines = (f"{letter}: {classes[answer]}, {probability:.0%}" for letter, answer, probability in answers)
        captions.append("\n".join([f"label {classes[int(labels[i])]}", *lines]))
    return draw_images(first.pixels[chosen[order]], captions, columns=COLUMNS)
