"""A network of its own tells digits from anything else. How often, `tests/reader/train_novelty.py` reports."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.sampling import split
from mnist_lit.reader.novelty import MAX_NOVELTY, NoveltyNetwork
from mnist_lit.reader.preprocess import as_mnist


def test_digits_are_no_novelty(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=True)
    _, val = split(labels, 5_000, 0)
    assert (NoveltyNetwork.load().novelty(pixels[val]) >= MAX_NOVELTY).float().mean() < 0.01


@pytest.mark.parametrize(
    "lines",
    [
        [[(30, 100), (170, 100), (130, 60), (170, 100), (130, 140)]],  # an arrow
        [[(100, 40), (100, 160)], [(40, 100), (160, 100)]],  # a plus sign
        [[(45, 45), (155, 45), (155, 155), (45, 155), (45, 45), (155, 155)]],  # a crossed box
        [[(40, 150), (70, 50), (100, 150), (130, 50), (160, 150)]],  # a zigzag
    ],
    ids=["arrow", "plus", "crossed box", "zigzag"],
)
def test_other_drawings_are_a_novelty(lines: list[list[tuple[int, int]]]) -> None:
    picture = Image.new("L", (200, 200), 225)
    for line in lines:
        ImageDraw.Draw(picture).line(line, fill=30, width=8)
    pixels = as_mnist(np.asarray(picture, dtype=np.float32)[..., None])
    assert NoveltyNetwork.load().novelty(torch.from_numpy(pixels)[None, None]) >= MAX_NOVELTY


def test_novelty_does_not_depend_on_the_size_of_the_batch(data_dir: Path) -> None:
    pixels = MNIST.read(data_dir, train=False)[0][:1_100]
    network = NoveltyNetwork.load()
    assert torch.allclose(network.novelty(pixels)[-5:], network.novelty(pixels[-5:]), atol=1e-5)
