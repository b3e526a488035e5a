"""Pictures of a comparison: accuracies, and images that only some recipes classify correctly."""

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10
from statistics import fmean

import torch
from PIL import Image, ImageDraw, ImageFont

from mnist_lit.studies.recipe import Answers
from mnist_lit.studies.statistics import mean_interval
from mnist_lit.training.drawings import BLACK, BLUE, GREY, LIGHT_GREY, WHITE, draw_images

__all__ = ["draw_accuracies", "draw_disagreements"]

MAX_IMAGES, COLUMNS = 32, 8  # images in the picture, images per row
LIGHT_BLUE = (188, 206, 232)
PLOT, ROW = 560, 30  # width of the plot and height of its rows, pixels


def draw_accuracies(accuracies: Mapping[str, tuple[Sequence[float], int]]) -> Image.Image:
    """Draw accuracies: a dot for each run, and a bar for the 95 % interval of the mean of several runs.

    Args:
        accuracies: the accuracies of the runs in each row, maybe none, and the number of images, by the row's name.
    """
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    found = {name: mean_interval(values, images) for name, (values, images) in accuracies.items()}
    intervals = {name: interval.ends if interval else () for name, interval in found.items()}
    ends = [end for values in [*intervals.values(), *(runs for runs, _ in accuracies.values())] for end in values]
    ticks = find_ticks(min(ends, default=0), max(ends, default=1))
    left, bottom = round(max(map(font.getlength, accuracies))) + 24, ROW * len(accuracies)
    image = Image.new("RGB", (left + PLOT + 40, bottom + 56), WHITE)
    draw = ImageDraw.Draw(image)
    draw.text((left, bottom + 30), "a dot for each run, a bar for the 95 % interval of the mean", GREY, small)

    def place(value: float) -> float:
        return left + PLOT * (value - ticks[0]) / (ticks[-1] - ticks[0])

    decimals = max(0, ceil(-log10(100 * (ticks[1] - ticks[0])) - 1e-9))
    for tick in ticks:
        draw.line((place(tick), 0, place(tick), bottom), LIGHT_GREY, 2)
        draw.text((place(tick), bottom + 6), f"{100 * tick:.{decimals}f} %", GREY, small, anchor="ma")
    for row, (name, (values, _)) in enumerate(accuracies.items()):
        y = ROW * (row + 0.5)
        draw.text((left - 14, y), name, BLACK, font, anchor="rm")
        if interval := intervals[name]:
            draw.rectangle((place(interval[0]), y - 7, place(interval[1]), y + 7), LIGHT_BLUE)
            draw.line((place(fmean(values)), y - 9, place(fmean(values)), y + 9), BLUE, 2)
        for value in values:
            draw.ellipse((place(value) - 3, y - 3, place(value) + 3, y + 3), BLACK)
    return image


def find_ticks(low: float, high: float) -> list[float]:
    """Return up to seven round numbers that include an interval, at least two."""
    span = max(high - low, 1e-4)
    power = 10.0 ** floor(log10(span / 5))
    step = next(step for factor in (1, 2, 5, 10) if span / (step := factor * power) <= 5 + 1e-9)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def draw_disagreements(answers: Mapping[str, Answers]) -> Image.Image:
    """Draw the validation images that only some recipes classify correctly; an empty picture if there are none.

    Images whose label's probability differs most come first. Recipes whose validation images are not those of the first
    recipe are left out. Several runs of a recipe answer together, by their mean probability.
    """
    first = next(iter(answers.values()))
    alike = {letter: found for letter, found in answers.items() if first.has_same_images(found)}
    correct = torch.stack([found.correct for found in alike.values()])  # (recipes, N)
    chosen = (correct.any(dim=0) & ~correct.all(dim=0)).nonzero()[:, 0]
    joint = torch.stack([found.joint[chosen] for found in alike.values()])  # (recipes, images, K)
    of_label = joint[:, torch.arange(len(chosen)), first.labels[chosen]]  # (recipes, images)
    order = (of_label.amax(dim=0) - of_label.amin(dim=0)).argsort(descending=True, stable=True)[:MAX_IMAGES]
    captions = []
    for i in order.tolist():
        rows = zip(alike, *(found.tolist() for found in joint[:, i].max(dim=1)), strict=True)
        lines = [f"{letter}: {first.classes[answer]}, {probability:.0%}" for letter, probability, answer in rows]
        captions.append("\n".join([f"label {first.classes[int(first.labels[chosen[i]])]}", *lines]))
    return draw_images(first.pixels[chosen[order]], captions, columns=COLUMNS)
