"""Drawings show what they are drawn from."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mnist_lit.datasets.catalog import DATASETS
from mnist_lit.training.drawings import CELL, draw_confusion, draw_filters, draw_images, mistake_captions

DIGIT_NAMES = DATASETS["MNIST"].classes


def cells(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the cells of the matrix, (10, CELL, 10, CELL, 3)."""
    left, top = picture.width - 11 * CELL - 16, picture.height - 10 * CELL - 8
    return np.asarray(picture)[top : top + 10 * CELL, left : left + 10 * CELL].reshape(10, CELL, 10, CELL, 3)


def test_right_is_blue_and_wrong_is_red_with_ink_by_share() -> None:
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts[0, 0], counts[1, 1], counts[1, 7], counts[2, 7] = 50, 95, 5, 100
    colours = cells(draw_confusion(counts, DIGIT_NAMES))[:, 4, :, 4].tolist()  # of corners, away from the numbers
    red, green, blue = colours[0][0]
    assert blue > green > red, "all right"
    strong, weak, nothing = colours[2][7], colours[1][7], colours[3][3]
    for red, green, blue in (strong, weak):
        assert red > max(green, blue)
    assert strong[1] < weak[1] < 200, "5 of 100 are seen as well"
    assert len(set(nothing)) == 1, "grey"


def test_each_count_is_written_into_its_cell() -> None:
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts[4, 9] = 8
    counts[:, 0] = 1
    one, other = (draw_confusion(counts * factor, DIGIT_NAMES) for factor in (1, 3))
    changed = (cells(one) != cells(other)).any(axis=(1, 3, 4))
    assert np.array_equal(changed, (counts > 0).numpy())


@pytest.mark.parametrize("name", DATASETS)
def test_the_names_of_any_data_set_fit(name: str) -> None:
    classes = DATASETS[name].classes
    picture = draw_confusion(torch.zeros(10, 10, dtype=torch.int64), classes)
    left, top = picture.width - 11 * CELL - 16, picture.height - 10 * CELL - 8
    heads = np.asarray(picture)[22:top, left : left + 10 * CELL]
    ink = (heads < 255).any(axis=2).reshape(-1, 10, CELL)
    assert ink[:, :, 0].sum() == 0, "each name stands in its column"
    assert ink.any(axis=(0, 2)).all()
    assert ink[0].sum() == 0, "and begins below the title"


def test_digits_are_dark_on_light_four_in_a_row_with_captions() -> None:
    pixels = torch.zeros(5, 1, 28, 28, dtype=torch.uint8)
    pixels[4, 0, 10:18, 10:18] = 255
    picture = np.asarray(draw_images(pixels, ["", *"1234"]))
    height, width, _ = picture.shape
    row, across = height // 2, width // 4
    assert (picture[:row, :across] == 255).all(), "an empty digit without a caption"
    assert (picture[row + 36 : row + 56, 40:60] == 0).all(), "the fifth one begins the second row"
    assert (picture[row:, across:] == 255).all(), "after it there is none"
    with pytest.raises(ValueError, match="zip"):
        draw_images(pixels, ["one"] * 4)


def test_augmented_pixels_between_whole_numbers_are_drawn_too() -> None:
    pixels = torch.full((1, 1, 28, 28), 254.7)
    assert (np.asarray(draw_images(pixels, [""]))[10:80, 10:90] == 0).all()


def test_no_mistakes_are_an_empty_picture() -> None:
    assert (np.asarray(draw_images(torch.zeros(0, 1, 28, 28), [])) == 255).all()


def test_a_caption_tells_the_truth_the_reading_and_how_sure_it_was() -> None:
    probabilities = torch.zeros(2, 10)
    probabilities[0, 9], probabilities[0, 4] = 0.97, 0.03
    probabilities[1, 2], probabilities[1, 7] = 0.505, 0.495
    assert mistake_captions(torch.tensor([4, 7]), probabilities, DIGIT_NAMES) == ["4 as 9, 97%", "7 as 2, 50%"]
    clothes = DATASETS["FashionMNIST"].classes
    assert mistake_captions(torch.tensor([4]), probabilities[:1], clothes) == ["Coat\nas Ankle boot\n97%"]


def middles(weight: Tensor) -> list[tuple[int, ...]]:
    """Return the colours of the middles of the first filters."""
    picture = np.asarray(draw_filters(weight))
    side = weight.shape[-1] * (36 // weight.shape[-1] + 1)
    return [tuple(picture[6 + side // 2, 6 + number * (side + 6) + side // 2].tolist()) for number in range(3)]


def test_filters_are_blue_where_they_add_and_red_where_they_take_away() -> None:
    weight = torch.zeros(9, 1, 3, 3)
    weight[0], weight[1] = 0.5, -0.25
    add, take, nothing = middles(weight)
    assert add[2] > add[0]
    assert take[0] > take[2]
    assert nothing == (255, 255, 255)
