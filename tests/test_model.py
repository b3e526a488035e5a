"""The network: equal to the blog's by default, its settings, and settings that are refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.blog import BlogCNN
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from mnist_lit.commands.fit import layer_shapes
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.model import CNN


def shapes(network: CNN) -> list[tuple[int, ...]]:
    return layer_shapes(network, MNIST.shape)


def test_logits_and_gradients_equal_those_of_the_blog(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=False)
    pixels, labels = pixels[:200], labels[:200]
    torch.manual_seed(777)
    blog, ours = BlogCNN(), CNN()
    ours.load_state_dict(blog.state_dict())

    expected, logits = blog(pixels / 255), ours(pixels)
    assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    gradients, references = (
        torch.autograd.grad(cross_entropy(output, labels), list(network.parameters()))
        for output, network in [(logits, ours), (expected, blog)]
    )
    for gradient, reference in zip(gradients, references, strict=True):
        assert_close(gradient, reference, rtol=1e-5, atol=2e-5, check_stride=False)


def test_initial_weights_equal_those_of_the_blog() -> None:
    torch.manual_seed(777)
    expected = BlogCNN().state_dict()
    torch.manual_seed(777)
    weights = CNN().state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_uint8_and_float_pixels_give_the_same_logits() -> None:
    pixels = torch.randint(256, (4, 1, 28, 28), dtype=torch.uint8)
    network = CNN()
    assert torch.equal(network(pixels), network(pixels.float()))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [(32, 28, 28), (32, 14, 14), (64, 14, 14), (64, 7, 7), (3136,)]),
        ({"channels": [4, 6, 8]}, [(4, 28, 28), (4, 14, 14), (6, 14, 14), (6, 7, 7), (8, 7, 7), (8, 3, 3), (72,)]),
        (
            {"channels": [16, 48, 96], "kernel_sizes": [5, 3, 3], "padding": [0, 0, 0], "pooling": [2, 2, 1]},
            [(16, 24, 24), (16, 12, 12), (48, 10, 10), (48, 5, 5), (96, 3, 3), (864,)],
        ),
        (
            {"channels": [2, 3], "kernel_sizes": [5, 7]},  # the default padding keeps the size
            [(2, 28, 28), (2, 14, 14), (3, 14, 14), (3, 7, 7), (3 * 7 * 7,)],
        ),
    ],
)
def test_blocks_have_channels_padding_and_pooling(settings: dict[str, Any], expected: list[tuple[int, ...]]) -> None:
    assert shapes(CNN(**settings)) == [(1, 28, 28), *expected, (10,)]


def test_pooling_follows_the_last_convolution_of_a_block() -> None:
    network = CNN([4, 6], convolutions=[1, 3])
    kinds = [[type(layer).__name__ for layer in block.children()] for block in list(network)[:2]]
    assert kinds[0] == ["Conv2d", "MaxPool2d", "ReLU"]
    assert kinds[1] == ["Conv2d", "ReLU", "Conv2d", "ReLU", "Conv2d", "MaxPool2d", "ReLU"]
    assert shapes(network)[-2:] == [(6 * 7 * 7,), (10,)]


def test_batch_normalisation_follows_each_convolution_without_bias() -> None:
    network = CNN([4, 6], convolutions=[2, 1], batch_norm=True)
    layers = list(network.modules())
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == 3
    assert all(layer.bias is None for layer in layers if isinstance(layer, nn.Conv2d))


def test_final_pooling_is_before_the_linear_layer() -> None:
    network = CNN([4, 6], final_pooling=3)
    assert [name for name, _ in network.named_children()] == ["layer1", "layer2", "pool", "flatten", "fc"]
    assert shapes(network)[-4:] == [(6, 7, 7), (6, 2, 2), (24,), (10,)]
    assert network.fc.weight.abs().max() <= 1 / 24**0.5, "torch's initial weight, which is smaller than Xavier's"


def test_gelu_takes_the_places_of_relu() -> None:
    network = CNN([4, 6], convolutions=[1, 2], activation="gelu")
    kinds = [type(layer).__name__ for layer in network.modules()]
    assert (kinds.count("GELU"), kinds.count("ReLU")) == (3, 0)
    assert shapes(network) == shapes(CNN([4, 6], convolutions=[1, 2]))


def test_logits_are_averaged_over_views_in_evaluation_mode() -> None:
    pixels = torch.randint(256, (5, 1, 28, 28), dtype=torch.uint8)
    up, down = pixels.roll((-1, -1), (2, 3)), pixels.roll((1, 1), (2, 3))
    up[:, :, -1], down[:, :, 0] = up[:, :, -3], down[:, :, 2]  # reflected at the border
    up[:, :, :, -1], down[:, :, :, 0] = up[:, :, :, -3], down[:, :, :, 2]
    plain = CNN([4])
    for images in ([pixels], [pixels, up, down]):
        views = [view for image in images for view in (image, image.flip(3))]
        network = CNN([4], views=len(views))  # type: ignore[arg-type]  # 2 or 6
        plain.load_state_dict(network.state_dict())
        assert torch.equal(network(pixels), plain(pixels)), "in training, the image alone"
        network.eval()
        assert_close(network(pixels), torch.stack([plain(view) for view in views]).mean(dim=0))
        assert shapes(network) == shapes(plain)


def test_dropout_is_active_in_training_only() -> None:
    pixels = torch.full((2, 1, 28, 28), 255)
    network = CNN([4], dropout=0.5)
    assert not torch.equal(network(pixels), network(pixels))
    assert torch.equal(network.eval()(pixels), network(pixels))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"final_pooling": 0}, "final_pooling must be 1 to 7, got 0"),
        ({"final_pooling": 15}, "final_pooling must be 1 to 7, got 15"),
        ({"views": 3}, "views must be 1, 2 or 6, got 3"),
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
        ({"activation": "tanh"}, "activation must be relu or gelu, got tanh"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CNN(**settings)


@pytest.mark.parametrize("shape", [(28, 28), (3, 28, 28), (2, 28, 28, 1), (2, 3, 28, 28)], ids=str)
def test_pixels_of_another_shape_are_refused_in_one_sentence(shape: tuple[int, ...]) -> None:
    message = f"pixels must have the shape (N, 1, 28, 28), got {[*shape]}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CNN([4])(torch.zeros(shape))


def test_layer_shapes_include_an_output_that_no_layer_computes() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flatten = nn.Flatten()

        def forward(self, pixels: Tensor) -> Tensor:
            return torch.stack([self.flatten(pixels).sum(dim=1)] * 10, dim=1)

    assert layer_shapes(Stack(), MNIST.shape) == [(1, 28, 28), (784,), (10,)]


def test_layer_shapes_do_not_change_the_network() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval(), nn.Flatten(), nn.Linear(8, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    layer_shapes(network, (1, 4, 4))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network] == [True, False, True, True]
