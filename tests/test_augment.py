"""Images are varied as told, each by itself, and no further."""

import pytest
import torch
from torch import Generator, Tensor

from mnist_lit.augment import Augmentation

SIDE = 28
IMAGES = 200
MIDDLE = (SIDE - 1) / 2
INNER = slice(9, 19)  # where no pixel comes from outside of the image


def sources(**amounts: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return where inner pixels come from, (N, 10, 10) across and down, and where they are, (10, 10), from the middle.

    Of an image whose pixels tell their own place, interpolation between neighbours tells places between them.
    """
    place = torch.arange(SIDE, dtype=torch.float32) - MIDDLE
    across, down = place.expand(SIDE, SIDE), place.expand(SIDE, SIDE).T
    found = [
        Augmentation(SIDE, **amounts)(image.expand(IMAGES, 1, SIDE, SIDE) + 100, Generator().manual_seed(0))[:, 0] - 100
        for image in (across, down)
    ]
    x, y, across, down = (image[..., INNER, INNER] for image in (*found, across, down))
    return x, y, across, down


def assert_both_ways(amounts: Tensor, most: float) -> None:
    """Assert that amounts (N,) reach to nearly `most`, both ways, evenly, and no further."""
    assert amounts.abs().max() <= most * 1.0001
    assert amounts.min() < -0.9 * most
    assert amounts.max() > 0.9 * most
    assert amounts.abs().mean() == pytest.approx(most / 2, rel=0.15)


def test_nothing_is_changed_unless_asked_for() -> None:
    pixels = torch.randint(256, (5, 1, SIDE, SIDE), dtype=torch.uint8)
    same = Augmentation(SIDE)(pixels)
    assert same.dtype == torch.float32
    assert torch.allclose(same, pixels.float(), atol=0.02)


def test_rotation_turns_each_image_around_its_middle() -> None:
    x, y, across, down = sources(rotation=15)
    angle = torch.atan2(y, x) - torch.atan2(down, across)
    angle = torch.atan2(angle.sin(), angle.cos()).rad2deg()  # (N, 10, 10), -180 to 180
    assert torch.allclose(x.square() + y.square(), across.square() + down.square(), atol=0.01)
    assert torch.allclose(angle, angle[:, :1, :1].expand_as(angle), atol=0.1)
    assert_both_ways(angle[:, 0, 0], 15)


def test_shift_moves_each_image_as_a_whole() -> None:
    x, y, across, down = sources(shift=2.5)
    for moved in (x - across, y - down):
        assert torch.allclose(moved, moved[:, :1, :1].expand_as(moved), atol=0.001)
        assert_both_ways(moved[:, 0, 0], 2.5)


def test_scaling_resizes_width_and_height_apart() -> None:
    x, y, across, down = sources(scaling=0.2)
    wider, higher = across / x, down / y
    for larger in (wider, higher):
        assert torch.allclose(larger, larger[:, :1, :1].expand_as(larger), atol=0.001)
        assert_both_ways(larger[:, 0, 0] - 1, 0.2)
    assert not torch.allclose(wider, higher, atol=0.1)


def test_shear_slants_each_image() -> None:
    x, y, across, down = sources(shear=0.3)
    slant = (x - across) / down
    assert torch.allclose(y, down.expand_as(y), atol=0.001)
    assert torch.allclose(slant, slant[:, :1, :1].expand_as(slant), atol=0.001)
    assert_both_ways(slant[:, 0, 0], 0.3)


def test_elastic_bends_smoothly_by_so_many_pixels() -> None:
    x, y, across, down = sources(elastic=1)
    for moved in (x - across, y - down):
        assert moved.mean().abs() < 0.1
        assert moved.std() == pytest.approx(0.75, abs=0.15), "interpolation between random shifts evens them out"
        assert moved.diff(dim=1).abs().max() < 1, "no fold: pixels stay in their order"


def test_what_is_drawn_follows_the_generator_only() -> None:
    pixels = torch.randint(256, (5, 1, SIDE, SIDE), dtype=torch.uint8)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    amounts = {"rotation": 10.0, "shift": 2.0, "scaling": 0.1, "shear": 0.1, "elastic": 0.5}
    first, again, other = (Augmentation(SIDE, **amounts)(pixels, Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.min() >= 0
    assert first.max() <= 255.001
