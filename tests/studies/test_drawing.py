"""Pictures of a comparison show the accuracies and the images that they are drawn from."""

import numpy as np
import pytest
import torch

from mnist_lit.studies.drawing import draw_accuracies, draw_disagreements
from mnist_lit.studies.recipe import Answers


def test_accuracies_are_dots_and_intervals_bars_in_the_row_of_their_name() -> None:
    figure = draw_accuracies({"several": ([0.980, 0.981], 10_000), "one": ([0.981], 10_000), "none": ([], 0)})
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["several", "one", "none"]
    (bar,) = (patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches)
    assert bar.x0 < 98
    assert bar.x1 > 98.1
    assert (bar.x0 + bar.x1) / 2 == pytest.approx(98.05), "centred on the mean"
    assert bar.y1 < 0 < bar.y0 < 1, "rows go down"
    dots = [np.asarray(line.get_xydata()).tolist() for line in axes.lines if line.get_marker() == "."]
    assert dots == [[[98.0, 0], [98.1, 0]], [[98.1, 1]], []]


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


def test_photographs_are_not_drawn_as_negatives() -> None:
    pixels, labels = torch.full((2, 3, 28, 28), 10, dtype=torch.uint8), torch.tensor([0, 1])
    answers = (torch.eye(2)[None], torch.eye(2).flip(1)[None])  # (R, N, K)
    found = {
        name: Answers(pixels, labels, p, ["no", "yes"], inverted=False) for name, p in zip("AB", answers, strict=True)
    }
    picture = np.asarray(draw_disagreements(found))
    assert picture[20, picture.shape[1] // 16].tolist() == [10, 10, 10]
