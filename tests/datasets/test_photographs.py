"""A person's own pictures are read in their order, and what cannot be read is reported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_lit.datasets.photographs import format_answer, read_photographs, stem

CLASSES = ["cat", "dog", "bird"]


def test_pictures_are_in_order_and_unreadable_ones_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = [10 * number for number in range(1, 21)]
    for level in levels:
        Image.new("L", (40, 30), level).save(tmp_path / f"{level:03}.png")
    (tmp_path / "broken.png").write_bytes(b"hello")
    pictures = read_photographs([str(tmp_path), str(tmp_path / "missing.png")], channels=3, side=8, fit="crop")
    assert (pictures.failed, pictures.number) == (2, 22)
    assert pictures.names == [str(tmp_path / f"{level:03}.png") for level in levels]
    assert pictures.pixels.shape == (20, 3, 8, 8)
    assert pictures.pixels[:, 2, 4, 4].tolist() == levels
    assert capsys.readouterr().err.count("error: ") == 2
    pictures.save(tmp_path / "seen", torch.zeros(20, 3))
    saved = np.asarray(Image.open(tmp_path / "seen/00001_020.png"))
    assert (saved.shape, saved.max()) == ((8, 8, 3), 20)


@pytest.mark.parametrize(
    ("probabilities", "line"),
    [
        ([0.1, 0.8, 0.1], "a.png: dog, 80.0%"),
        ([0.0, 0.0, 1.0], "a.png: bird, over 99.9%"),
        ([0.35, 0.34, 0.31], "a.png: cat, 35.0% (unsure: or dog, 34.0%)"),
    ],
)
def test_an_answer_tells_whether_it_is_sure(probabilities: list[float], line: str) -> None:
    assert format_answer("a.png", torch.tensor(probabilities), CLASSES) == line


def test_names_of_saved_pictures_are_short_enough_for_any_file_system() -> None:
    assert stem("folder/" + 125 * "é" + ".png") == 50 * "é"
