"""Pictures of a comparison show the accuracies and the images that they are drawn from."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from mnist_lit.studies.drawing import LIGHT_BLUE, ROW, draw_accuracies, draw_disagreements, find_ticks
from mnist_lit.studies.recipe import Answers
from mnist_lit.training.drawings import BLACK


def test_accuracies_are_dots_and_intervals_bars_on_one_scale() -> None:
    picture = np.asarray(
        draw_accuracies({"several": ([0.980, 0.981], 10_000), "one": ([0.981], 10_000), "none": ([], 0)})
    )
    left = picture.shape[1] - 40 - 560  # where the names end

    def columns(row: int, colour: tuple[int, int, int]) -> list[int]:
        """Return where a row has a colour, right of its name."""
        line = picture[row * ROW + ROW // 2]
        return [int(x) for x in np.flatnonzero((line == colour).all(axis=1)) if x > left]

    dots, bar = columns(0, BLACK), columns(0, LIGHT_BLUE)
    assert min(bar) < min(dots) < max(dots) < max(bar)
    assert min(bar) + max(bar) == pytest.approx(min(dots) + max(dots), abs=4), "centred on the mean"
    assert np.mean(columns(1, BLACK)) == pytest.approx(max(dots) - 3, abs=2), "equal values are at one place"
    assert not columns(2, BLACK)


@pytest.mark.parametrize(("low", "high"), [(0.9, 0.9), (0.98, 0.99), (0.0, 1.0), (0.99712, 0.99783)])
def test_ticks_are_round_and_include_all(low: float, high: float) -> None:
    ticks = find_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] - 1e-9 <= low <= high <= ticks[-1] + 1e-9
    (step,) = {round((after - before) * 1e6) for before, after in pairwise(ticks)}
    assert str(step).rstrip("0") in {"1", "2", "5"}


def test_disagreements_are_the_images_that_some_classify_correctly_and_others_do_not() -> None:
    pixels = torch.tensor([0, 50, 100, 150], dtype=torch.uint8).view(4, 1, 1, 1).expand(-1, -1, 28, 28)
    labels, classes = torch.tensor([0, 0, 1, 1]), ["no", "yes"]

    def answers(*of_label: float, images: torch.Tensor = pixels) -> Answers:
        right = torch.tensor(of_label)
        found = torch.stack([torch.where(labels == i, right, 1 - right) for i in (0, 1)], dim=1)  # (N, K)
        return Answers(images, labels, found[None], classes)

    found = {"A": answers(0.9, 0.8, 0.6, 0.1), "B": answers(0.7, 0.1, 0.4, 0.2)}
    picture = draw_disagreements(found)
    middles = np.asarray(picture)[20, picture.width // 16 :: picture.width // 8, 0]
    assert middles.tolist() == [255 - 50, 255 - 100, *[255] * 6], "the one with the larger difference comes first"
    found["C"] = answers(1.0, 1.0, 1.0, 1.0, images=pixels + 1)
    assert draw_disagreements(found).size == picture.size, "recipes with other images are left out"
    assert (np.asarray(draw_disagreements({"A": found["A"]})) == 255).all()
