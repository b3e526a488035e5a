"""The network is the blog's, whatever its layout and order of operations."""

from pathlib import Path
from typing import Any

import pytest
import torch
from blog import BlogCNN
from conftest import MNIST
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from mnist_lit.model import CNN
from mnist_lit.training.inspection import layer_shapes


def shapes(network: CNN) -> list[tuple[int, ...]]:
    return layer_shapes(network, MNIST.shape)


def test_the_blogs_state_dict_gives_the_blogs_logits_and_gradients(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=False)
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
    assert shapes(CNN()) == [
        (1, 28, 28),
        (32, 28, 28),
        (32, 14, 14),
        (64, 14, 14),
        (64, 7, 7),
        (3136,),
        (10,),
    ]


def test_whole_and_float_pixels_give_the_same_logits() -> None:
    pixels = torch.randint(256, (4, 1, 28, 28), dtype=torch.uint8)
    network = CNN()
    assert torch.equal(network(pixels), network(pixels.float()))


@pytest.mark.parametrize(("channels", "features"), [([5], 5 * 14 * 14), ([4, 6, 8], 8 * 3 * 3), ([1, 2, 3, 4], 4)])
def test_other_numbers_of_blocks_fit_the_linear_layer(channels: list[int], features: int) -> None:
    assert shapes(CNN(channels))[-2:] == [(features,), (10,)]


def test_convolutions_that_are_not_padded_work_on_whole_patches() -> None:
    network = CNN([16, 48, 96], kernel_sizes=[5, 3, 3], padding=[0, 0, 0], pooling=[2, 2, 1])
    assert shapes(network) == [
        *[(1, 28, 28), (16, 24, 24), (16, 12, 12), (48, 10, 10), (48, 5, 5), (96, 3, 3), (864,), (10,)]
    ]


def test_filters_of_any_odd_size_keep_the_side_by_default() -> None:
    assert shapes(CNN([2, 3], kernel_sizes=[5, 7]))[1:5] == [
        (2, 28, 28),
        (2, 14, 14),
        (3, 14, 14),
        (3, 7, 7),
    ]


def test_blocks_may_have_several_convolutions_of_which_the_last_one_halves_the_side() -> None:
    network = CNN([4, 6], convolutions=[1, 3])
    kinds = [[type(layer).__name__ for layer in block.children()] for block in list(network)[:2]]
    assert kinds[0] == ["Conv2d", "MaxPool2d", "ReLU"]
    assert kinds[1] == ["Conv2d", "ReLU", "Conv2d", "ReLU", "Conv2d", "MaxPool2d", "ReLU"]
    assert shapes(network)[-2:] == [(6 * 7 * 7,), (10,)]


def test_batches_are_normalised_after_each_convolution_which_then_needs_no_bias() -> None:
    network = CNN([4, 6], convolutions=[2, 1], batch_norm=True)
    layers = list(network.modules())
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == 3
    assert all(layer.bias is None for layer in layers if isinstance(layer, nn.Conv2d))


def test_dropout_leaves_features_out_in_training_only() -> None:
    pixels = torch.full((2, 1, 28, 28), 255)
    network = CNN([4], dropout=0.5)
    assert not torch.equal(network(pixels), network(pixels))
    assert torch.equal(network.eval()(pixels), network(pixels))


def test_the_shapes_are_found_without_a_trace() -> None:
    network = CNN([4], batch_norm=True, dropout=0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    shapes(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": []}, r"channels must be one or more numbers, got \[\]"),
        ({"channels": [0]}, r"channels must be 1 numbers, one for each block, of at least 1, got \[0\]"),
        ({"channels": [8, -1]}, "channels must be 2 numbers, one for each block, of at least 1"),
        ({"channels": [1, 2, 3, 4, 5]}, r"channels \[1, 2, 3, 4, 5\]: block 5 leaves no pixel of 28×28"),
        ({"convolutions": [1]}, "convolutions must be 2 numbers"),
        ({"convolutions": [1, 0]}, "convolutions must be 2 numbers, one for each block, of at least 1"),
        ({"kernel_sizes": [3, 0]}, "kernel_sizes must be 2 numbers, one for each block, of at least 1"),
        ({"padding": [-1, 0]}, "padding must be 2 numbers, one for each block, of at least 0"),
        ({"pooling": [2, 2, 2]}, "pooling must be 2 numbers, one for each block"),
        ({"kernel_sizes": [3, 15], "padding": [1, 0]}, "block 2 leaves no pixel of 28×28"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CNN(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"channels": [10**11]},
        {"channels": [4_000, 4_000]},
        {"channels": [1], "convolutions": [10**9]},
        {"channels": [1], "kernel_sizes": [10**6 + 1]},
        {"channels": [1], "padding": [10**9], "pooling": [10**8]},
        {"channels": [1] * 10**5, "pooling": [1] * 10**5},
    ],
)
def test_a_network_that_no_memory_holds_is_refused_before_it_is_made(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"block \d+ is too large: some \de\+\d+ numbers"):
        CNN(**settings)


def test_a_network_of_ten_million_weights_is_made() -> None:
    assert sum(weight.numel() for weight in CNN([1_024, 1_024]).parameters()) > 9_000_000
