"""The network is the blog's, whatever its layout and order of operations."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from blog import BlogCNN
from conftest import MNIST
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from mnist_lit import idx
from mnist_lit.model import CNN


def test_the_blogs_state_dict_gives_the_blogs_logits_and_gradients(data_dir: Path) -> None:
    pixels, labels = idx.read(MNIST, data_dir, train=False)
    pixels, labels = pixels[:200], labels[:200]
    blog, ours = BlogCNN(), CNN()
    ours.load_state_dict(blog.state_dict())

    expected, logits = blog(pixels / 255), ours(pixels)
    assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    gradients, references = (
        torch.autograd.grad(cross_entropy(output, labels), list(network.parameters()))
        for output, network in [(logits, ours), (expected, blog)]
    )
    for gradient, reference in zip(gradients, references, strict=True):
        assert_close(gradient, reference, rtol=1e-5, atol=1e-5, check_stride=False)


def test_the_same_seed_gives_the_blogs_initial_weights() -> None:
    torch.manual_seed(777)
    expected = BlogCNN().state_dict()
    torch.manual_seed(777)
    weights = CNN().state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_digit_takes_the_shapes_that_the_blog_walks_through() -> None:
    assert CNN().shapes() == [(1, 28, 28), (32, 28, 28), (32, 14, 14), (64, 14, 14), (64, 7, 7), (3136,), (10,)]


def test_whole_and_float_pixels_give_the_same_logits() -> None:
    pixels = torch.randint(256, (4, 1, 28, 28), dtype=torch.uint8)
    network = CNN()
    assert torch.equal(network(pixels), network(pixels.float()))


@pytest.mark.parametrize(("channels", "features"), [([5], 5 * 14 * 14), ([4, 6, 8], 8 * 3 * 3), ([1, 2, 3, 4], 4)])
def test_other_numbers_of_blocks_fit_the_linear_layer(channels: list[int], features: int) -> None:
    assert CNN(channels).shapes()[-2:] == [(features,), (10,)]


@pytest.mark.parametrize("channels", [[], [0], [8, -1], [1, 2, 3, 4, 5]])
def test_channels_that_make_no_network_are_refused(channels: Sequence[int]) -> None:
    with pytest.raises(ValueError, match="channels must be one to 4 positive numbers"):
        CNN(channels)
