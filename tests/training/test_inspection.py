"""Layer shapes, features and filters of networks."""

import pytest
import torch
from torch import Tensor, nn

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.model import CNN
from mnist_lit.training.inspection import first_filters, last_features, layer_shapes

PIXELS = torch.randint(256, (3, 1, 28, 28), dtype=torch.uint8)


def test_layer_shapes_include_an_output_that_no_layer_computes() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flatten = nn.Flatten()

        def forward(self, pixels: Tensor) -> Tensor:
            return torch.stack([self.flatten(pixels).sum(dim=1)] * 10, dim=1)

    assert layer_shapes(Stack(), MNIST.shape) == [(1, 28, 28), (784,), (10,)]


def test_inspection_does_not_change_the_network() -> None:
    network = CNN([4], batch_norm=True, dropout=0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    layer_shapes(network, MNIST.shape)
    last_features(network, PIXELS)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not any(layer._forward_hooks for layer in network.modules())  # noqa: SLF001


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_last_features_are_the_input_of_the_linear_layer_or_the_pixels(dropout: float) -> None:
    network = CNN([4, 6], dropout=dropout).eval()
    inputs: list[Tensor] = []
    with network.fc.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0])):
        network(PIXELS)
    network.train()
    features = last_features(network, PIXELS)
    assert features.shape == (3, 6 * 7 * 7)
    assert torch.equal(features, inputs[0])
    assert torch.equal(last_features(nn.Identity(), PIXELS), PIXELS.flatten(1))


def test_first_filters_are_the_weights_of_a_first_convolution_of_grey_or_coloured_images() -> None:
    network = CNN([4, 6])
    filters = first_filters(network)
    assert filters is not None
    assert torch.equal(filters, next(network.parameters()))
    assert not filters.requires_grad
    assert first_filters(nn.Sequential(nn.Flatten(), nn.Linear(784, 10))) is None
    assert first_filters(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(1, 4, 3))) is None


def test_frozen_layers_stay_in_evaluation_mode() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval(), nn.Flatten(), nn.Linear(8, 3))
    layer_shapes(network, (1, 4, 4))
    assert [module.training for module in network] == [True, False, True, True]
