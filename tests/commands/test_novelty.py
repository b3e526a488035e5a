"""A network of its own tells digits from anything else. How often, `tests/benchmarks/novelty.py` reports."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from mnist_lit.commands.novelty import MAX_NOVELTY, NoveltyNetwork
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.sampling import split
from mnist_lit.photos.preprocess import as_mnist


def test_digits_are_no_novelty(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=True)
    _, val = split(labels, 5_000, 0)
    assert (NoveltyNetwork.load().novelty(pixels[val]) >= MAX_NOVELTY).float().mean() < 0.01


def test_letters_and_faces_are_a_novelty() -> None:
    found = []
    for name in "AEFHKMNRTWXYfhkmtx":
        picture = Image.new("L", (200, 200), 225)
        ImageDraw.Draw(picture).text((100, 100), name, fill=30, font_size=130, anchor="mm")
        found.append(as_mnist(np.asarray(picture, dtype=np.float32)[..., None]))
    face = Image.new("L", (200, 200), 225)
    draw = ImageDraw.Draw(face)
    draw.ellipse((45, 45, 155, 155), outline=40, width=8)
    draw.ellipse((75, 80, 85, 90), fill=40)
    draw.ellipse((115, 80, 125, 90), fill=40)
    found.append(as_mnist(np.asarray(face, dtype=np.float32)[..., None]))
    novelty = NoveltyNetwork.load().novelty(torch.from_numpy(np.stack(found))[:, None])
    assert (novelty >= MAX_NOVELTY).float().mean() > 0.9


def test_novelty_does_not_depend_on_the_size_of_the_batch(data_dir: Path) -> None:
    pixels = MNIST.read(data_dir, train=False)[0][:1_100]
    network = NoveltyNetwork.load()
    assert torch.allclose(network.novelty(pixels)[-5:], network.novelty(pixels[-5:]), atol=1e-5)
