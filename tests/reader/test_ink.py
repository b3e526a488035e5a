"""Ink is separated from its background, and from the lines of its paper."""

import numpy as np
import pytest
from reader.helpers.sheets import sheet
from scipy import ndimage

from mnist_lit.reader.ink import BLANK, find_ink


def test_pencil_is_found_beside_dark_printed_lines() -> None:
    """The threshold between the lines and all else would leave it out."""
    pencil = np.zeros((200, 200), dtype=bool)
    pencil[60:140, 95:101] = True
    lines = sheet((200, 200), "frame", 30, 5)
    picture = 240 * (1 - np.maximum(0.3 * ndimage.gaussian_filter(pencil.astype(float), 1), 0.9 * lines))
    ink = find_ink(picture[..., None].astype(np.float32))
    assert ink.ruled
    assert (ink.mask == pencil).mean() > 0.99
    assert ink.mask[pencil].mean() > 0.9


def test_ink_is_found_where_the_background_is_brighter_than_estimated() -> None:
    """Its strength is negative there. A large sheet with little ink, whose background is estimated as too bright."""
    rng = np.random.default_rng(0)
    picture = rng.normal(225, 3, (2_000, 1_500))
    picture[rng.random((2_000, 1_500)) < 0.2] = 235
    picture[::40, ::4] = 60
    picture[1::40, ::4] = 60
    picture[1_000:1_060, 700:710] = 30
    ink = find_ink(picture[..., None].clip(0, 255).astype(np.float32))
    assert ink.mask.mean() < 0.1
    assert ink.mask[1_005:1_055, 702:708].all()


def test_an_empty_form_is_blank() -> None:
    picture = 230 - 180 * sheet((400, 500), "table", 50, 3)
    with pytest.raises(ValueError, match=BLANK):
        find_ink(picture[..., None].astype(np.float32))
