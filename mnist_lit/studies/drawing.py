"""Pictures of a comparison: accuracies, and images that only some recipes classify correctly."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from PIL import Image

from mnist_lit.studies.recipe import Answers
from mnist_lit.studies.statistics import mean_interval
from mnist_lit.training.drawings import draw_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_accuracies", "draw_disagreements"]

MAX_IMAGES, COLUMNS = 32, 8  # images in the picture, images per row


def draw_accuracies(accuracies: Mapping[str, tuple[Sequence[float], int]]) -> "Figure":
    """Draw accuracies: a dot for each run, and a bar for the 95 % interval of the mean of several runs.

    Args:
        accuracies: the accuracies of the runs in each row, maybe none, and the number of images, by the row's name.
    """
    from matplotlib.figure import Figure  # here, since the import takes a second

    figure = Figure(figsize=(9, 1 + 0.35 * len(accuracies)), layout="constrained")
    axes = figure.subplots()
    axes.use_sticky_edges = False  # a margin beside the bars
    for row, (values, images) in enumerate(accuracies.values()):
        if interval := mean_interval(values, images):
            low, high = interval.ends
            axes.barh(row, 100 * (high - low), height=0.5, left=100 * low, color="lightsteelblue")
            axes.plot(100 * fmean(values), row, "|", color="tab:blue", markersize=14, markeredgewidth=2)
        axes.plot([100 * value for value in values], [row] * len(values), "k.")
    axes.set_yticks(range(len(accuracies)), accuracies)
    axes.set_ylim(len(accuracies) - 0.5, -0.5)  # from top to bottom
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_xlabel("accuracy in %: a dot for each run, a bar for the 95 % interval of the mean")
    axes.grid(axis="x", alpha=0.3)
    return figure


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
    return draw_images(first.pixels[chosen[order]], captions, inverted=first.inverted, columns=COLUMNS)
