"""The shapes of the layers of any network."""

import torch
from torch import Tensor, nn

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.model import CNN
from mnist_lit.training.inspection import layer_shapes


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
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not any(layer._forward_hooks for layer in network.modules())  # noqa: SLF001


def test_frozen_layers_stay_in_evaluation_mode() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval(), nn.Flatten(), nn.Linear(8, 3))
    layer_shapes(network, (1, 4, 4))
    assert [module.training for module in network] == [True, False, True, True]
