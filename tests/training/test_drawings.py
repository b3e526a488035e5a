"""Pictures show the numbers that they are drawn from."""

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_lit.datasets.catalog import DATASETS
from mnist_lit.training.drawings import (
    CELL,
    draw_confusion,
    draw_images,
    mistake_captions,
)

CLASSES = DATASETS["MNIST"].classes


def find_matrix(picture: Image.Image) -> tuple[int, int]:
    """Return the left and the top edge of the confusion matrix."""
    return picture.width - 11 * CELL - 16, picture.height - 10 * CELL - 8


def cells(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the cells of the confusion matrix, (10, CELL, 10, CELL, 3)."""
    left, top = find_matrix(picture)
    return np.asarray(picture)[top : top + 10 * CELL, left : left + 10 * CELL].reshape(10, CELL, 10, CELL, 3)


def test_confusion_is_blue_if_correct_red_if_wrong_with_intensity_by_fraction() -> None:
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts[0, 0], counts[1, 1], counts[1, 7], counts[2, 7] = 50, 95, 5, 100
    colours = cells(draw_confusion(counts, CLASSES))[:, 4, :, 4].tolist()  # of corners, without the numbers
    red, green, blue = colours[0][0]
    assert blue > green > red, "all correct"
    all_wrong, few_wrong, empty = colours[2][7], colours[1][7], colours[3][3]
    for red, green, blue in (all_wrong, few_wrong):
        assert red > max(green, blue)
    assert all_wrong[1] < few_wrong[1] < 200, "5 of 100 are visible"
    assert len(set(empty)) == 1, "grey"


def test_confusion_has_each_count_in_its_cell() -> None:
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts[4, 9] = 8
    counts[:, 0] = 1
    one, other = (draw_confusion(counts * factor, CLASSES) for factor in (1, 3))
    changed = (cells(one) != cells(other)).any(axis=(1, 3, 4))
    assert np.array_equal(changed, (counts > 0).numpy())


@pytest.mark.parametrize("name", DATASETS)
def test_confusion_has_room_for_the_class_names(name: str) -> None:
    picture = draw_confusion(torch.zeros(10, 10, dtype=torch.int64), DATASETS[name].classes)
    left, top = find_matrix(picture)
    headings = np.asarray(picture)[22:top, left : left + 10 * CELL]
    text = (headings < 255).any(axis=2).reshape(-1, 10, CELL)
    assert text[:, :, 0].sum() == 0, "each name is within its column"
    assert text.any(axis=(0, 2)).all()
    assert text[0].sum() == 0, "and below the title"


def test_images_are_inverted_in_four_columns_with_captions() -> None:
    pixels = torch.zeros(5, 1, 28, 28, dtype=torch.uint8)
    pixels[4, 0, 10:18, 10:18] = 255
    picture = np.asarray(draw_images(pixels, ["", *"1234"]))
    height, width, _ = picture.shape
    row, column = height // 2, width // 4
    assert (picture[:row, :column] == 255).all(), "an empty image without a caption"
    assert (picture[row + 36 : row + 56, 40:60] == 0).all(), "the fifth image begins the second row"
    assert (picture[row:, column:] == 255).all(), "the rest of the row is empty"
    with pytest.raises(ValueError, match="zip"):
        draw_images(pixels, ["one"] * 4)


def test_photographs_are_not_inverted_and_large_ones_reduced() -> None:
    pixels = torch.tensor([200, 100, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    for shape in ((32, 32), (500, 300)):
        picture = draw_images(pixels.expand(-1, -1, *shape), ["a"], inverted=False)
        assert max(picture.size) < 500
        assert (np.asarray(picture)[10:80, 12:60] == [200, 100, 0]).all()


def test_images_may_have_float_pixels_and_there_may_be_none() -> None:
    pixels = torch.full((1, 1, 28, 28), 254.7)
    assert (np.asarray(draw_images(pixels, [""]))[10:80, 10:90] == 0).all()
    assert (np.asarray(draw_images(pixels[:0], [])) == 255).all()


def test_captions_have_true_class_predicted_class_and_confidence() -> None:
    probabilities = torch.zeros(2, 10)
    probabilities[0, 9], probabilities[0, 4] = 0.97, 0.03
    probabilities[1, 2], probabilities[1, 7] = 0.505, 0.495
    assert mistake_captions(torch.tensor([4, 7]), probabilities, CLASSES) == ["4 as 9, 97%", "7 as 2, 50%"]
    clothes = DATASETS["FashionMNIST"].classes
    assert mistake_captions(torch.tensor([4]), probabilities[:1], clothes) == ["Coat\nas Ankle boot\n97%"]
    long = [20 * letter for letter in "abcdefghij"]
    assert mistake_captions(torch.tensor([4]), probabilities[:1], long) == [f"{14 * 'e'}…\nas {14 * 'j'}…\n97%"]
