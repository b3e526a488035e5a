"""Augmentations: each image is transformed within the given ranges."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mnist_lit.datasets.augmentation import Augmentation

SIDE = 28
IMAGES = 200
CENTRE = (SIDE - 1) / 2
INNER = slice(9, 19)  # pixels that no transformation takes from outside the image


def augment_seeded(augment: Augmentation, images: Tensor) -> Tensor:
    torch.manual_seed(0)
    return augment(images)


def sampling_grid(inner: slice = INNER, **settings: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the coordinates x and y at which inner pixels are sampled, (N, 10, 10), and their own, (10, 10).

    They are in pixels from the centre, and computed by augmenting images whose values are coordinates: bilinear
    interpolation is exact for these.
    """
    coordinates = torch.arange(SIDE, dtype=torch.float32) - CENTRE
    x0, y0 = coordinates.expand(SIDE, SIDE), coordinates.expand(SIDE, SIDE).T
    augment = Augmentation(SIDE, **settings)
    x, y = (augment_seeded(augment, v.expand(IMAGES, 1, SIDE, SIDE) + 100)[:, 0] - 100 for v in (x0, y0))
    x, y, x0, y0 = (image[..., inner, inner] for image in (x, y, x0, y0))
    return x, y, x0, y0


def assert_uniform(values: Tensor, limit: float) -> None:
    """Assert that values (N,) are spread evenly between -limit and limit."""
    assert values.abs().max() <= limit * 1.0001
    assert values.min() < -0.9 * limit
    assert values.max() > 0.9 * limit
    assert values.abs().mean() == pytest.approx(limit / 2, rel=0.15)


def test_default_changes_only_the_dtype() -> None:
    pixels = torch.randint(256, (5, 1, SIDE, SIDE), dtype=torch.uint8)
    augmented = Augmentation(SIDE)(pixels)
    assert augmented.dtype == torch.float32
    assert torch.allclose(augmented, pixels.float(), atol=0.02)


def test_rotation_is_about_the_centre() -> None:
    x, y, x0, y0 = sampling_grid(rotation=15)
    angle = torch.atan2(y, x) - torch.atan2(y0, x0)
    angle = torch.atan2(angle.sin(), angle.cos()).rad2deg()  # (N, 10, 10), -180 to 180
    assert torch.allclose(x.square() + y.square(), x0.square() + y0.square(), atol=0.01)
    assert torch.allclose(angle, angle[:, :1, :1].expand_as(angle), atol=0.1)
    assert_uniform(angle[:, 0, 0], 15)


def test_shift_is_the_same_for_all_pixels() -> None:
    x, y, x0, y0 = sampling_grid(shift=2.5)
    for shift in (x - x0, y - y0):
        assert torch.allclose(shift, shift[:, :1, :1].expand_as(shift), atol=0.001)
        assert_uniform(shift[:, 0, 0], 2.5)


def test_scaling_is_independent_in_x_and_y() -> None:
    x, y, x0, y0 = sampling_grid(scaling=0.2)
    width, height = x0 / x, y0 / y
    for scale in (width, height):
        assert torch.allclose(scale, scale[:, :1, :1].expand_as(scale), atol=0.001)
        assert_uniform(scale[:, 0, 0] - 1, 0.2)
    assert not torch.allclose(width, height, atol=0.1)


def test_shear_is_horizontal() -> None:
    x, y, x0, y0 = sampling_grid(shear=0.3)
    shear = (x - x0) / y0
    assert torch.allclose(y, y0.expand_as(y), atol=0.001)
    assert torch.allclose(shear, shear[:, :1, :1].expand_as(shear), atol=0.001)
    assert_uniform(shear[:, 0, 0], 0.3)


def test_elastic_deformation_is_smooth() -> None:
    x, y, x0, y0 = sampling_grid(elastic=1)
    for shift in (x - x0, y - y0):
        assert shift.mean().abs() < 0.1
        assert shift.std() == pytest.approx(0.75, abs=0.15), "less than 1 by interpolation"
        assert shift.diff(dim=1).abs().max() < 1, "no folds: pixels stay in their order"


def test_elastic_deformation_has_the_documented_size() -> None:
    x, y, x0, y0 = sampling_grid(slice(1, -1), elastic=0.2)  # of all pixels but those whose neighbours are outside
    displacements = torch.stack([x - x0, y - y0])
    assert displacements.square().mean().sqrt() == pytest.approx(0.82 * 0.2, rel=0.05)


def test_random_numbers_follow_the_seed_of_torch_and_pixels_stay_in_their_range() -> None:
    pixels = torch.randint(256, (5, 1, SIDE, SIDE), dtype=torch.uint8)
    augment = Augmentation(SIDE, rotation=10, shift=2, scaling=0.1, shear=0.1, elastic=0.5, crop=3, flip=True)
    first, same = (augment_seeded(augment, pixels) for _ in range(2))
    assert torch.equal(first, same)
    assert not torch.equal(first, augment(pixels))
    assert first.min() >= 0
    assert first.max() <= 255.001


def numbered(side: int) -> Tensor:
    """Return images of three channels whose pixels have unique values, (IMAGES, 3, side, side)."""
    return torch.arange(3 * side**2, dtype=torch.float32).view(1, 3, side, side).expand(IMAGES, -1, -1, -1)


def test_flip_mirrors_each_image_in_every_other_epoch_and_half_of_them_in_each() -> None:
    images = torch.randint(256, (IMAGES, 3, 5, 5), dtype=torch.uint8)
    augment = Augmentation(5, flip=True)
    mirrored = []
    for epoch in range(3):
        augmented = augment(images, epoch)
        same, other = ((augmented == expected).flatten(1).all(dim=1) for expected in (images, images.flip(3)))
        assert (same ^ other).all()
        assert 0.4 < other.float().mean() < 0.6
        mirrored.append(other)
    assert torch.equal(mirrored[0], ~mirrored[1])
    assert torch.equal(mirrored[0], mirrored[2])


def test_crop_shifts_by_whole_pixels_with_reflections_at_the_border() -> None:
    images = numbered(6)
    augmented = augment_seeded(Augmentation(6, crop=2), images)
    padded = torch.nn.functional.pad(images[:1], [2] * 4, mode="reflect")
    expected = torch.cat([padded[..., y : y + 6, x : x + 6] for y in range(5) for x in range(5)])  # (25, 3, 6, 6)
    found = (augmented[:, None] == expected[None]).flatten(2).all(dim=2)  # (IMAGES, 25)
    assert (found.sum(dim=1) == 1).all()
    assert found.any(dim=0).all(), "every shift occurs"


def test_crop_of_images_that_are_not_square() -> None:
    images = torch.arange(8.0 * 5).view(1, 1, 8, 5)
    augmented = augment_seeded(Augmentation(5, crop=1, flip=True), images)
    assert augmented.shape == images.shape
    assert set(augmented.flatten().tolist()) <= set(images.flatten().tolist())
