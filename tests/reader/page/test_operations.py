"""The operations of a network are described as the page's script computes them; others are refused by name."""

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from reader.helpers.pages import describe
from torch import Tensor, nn
from torch.nn.functional import dropout

from mnist_lit import CNN, DigitClassifier
from mnist_lit.reader.page.operations import Settings


def describe_network_of(network: nn.Module) -> Settings:
    classifier = DigitClassifier()
    classifier.network = network  # type: ignore[assignment]  # any module from pixels to logits
    return describe(classifier)


def kinds(described: Settings) -> list[str]:
    return [operation["kind"] for operation in described["operations"]]


def test_default_network() -> None:
    network = CNN()
    described = describe_network_of(network)
    layers = ["conv2d", "max_pool2d", "relu"]
    assert kinds(described) == ["multiply", *layers, *layers, "flatten", "linear", "multiply", "softmax"]
    assert [block["title"] for block in described["blocks"]] == ["layer1", "layer2"]
    assert [block["shape"] for block in described["blocks"]] == [[14, 14, 32], [7, 7, 64]], "(H, W, C)"
    names = {operation["name"] for operation in described["operations"]}
    assert {block["name"] for block in described["blocks"]} <= names
    assert described["operations"][-1]["name"] == "probabilities"

    numbers = np.frombuffer(b64decode(described["weights"]), dtype="<f4")
    assert len(numbers) == sum(parameter.numel() for parameter in network.parameters())
    linear = next(operation for operation in described["operations"] if operation["kind"] == "linear")
    start, shape = linear["weight"]["start"], linear["weight"]["shape"]
    stored = torch.tensor(numbers[start : start + shape[0] * shape[1]]).view(shape)
    assert torch.equal(stored, network.fc.weight)
    json.dumps(described)


@pytest.mark.parametrize("views", [2, 6])
def test_a_network_that_sees_several_views_has_each_weight_and_each_block_once(views: Literal[2, 6]) -> None:
    torch.manual_seed(0)
    plain = describe_network_of(CNN())
    torch.manual_seed(0)
    several = describe_network_of(CNN(views=views))
    assert several["weights"] == plain["weights"]
    assert several["blocks"] == plain["blocks"], "those of the image as it is"


def test_batch_normalisation_becomes_a_factor_and_a_summand_of_each_channel() -> None:
    network = CNN([3], batch_norm=True, dropout=0.5)
    norm = network.get_submodule("layer1.2")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.uniform_(0.5, 2)
    described = describe_network_of(network)
    assert kinds(described)[1:4] == ["conv2d", "max_pool2d", "scale"]
    scale = described["operations"][3]
    numbers = np.frombuffer(b64decode(described["weights"]), dtype="<f4")
    factor, summand = (torch.tensor(numbers[scale[name]["start"] :][:3]).view(3, 1, 1) for name in ("weight", "bias"))
    x = torch.rand(1, 3, 2, 2)
    torch.testing.assert_close(x * factor + summand, norm.eval()(x))


class Network(nn.Module):
    """A function of pixels 0-1, and a linear layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.fc = nn.LazyLinear(10)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layer(pixels / 255).flatten(1))
        return logits


class Function(nn.Module):
    """A function as a module, with a constant tensor and a parameter."""

    constant: Tensor

    def __init__(self, function: Callable[[Tensor, "Function"], Tensor]) -> None:
        super().__init__()
        self.function, self.constant = function, torch.ones(1, 28, 28)
        self.weight, self.bias = nn.Parameter(torch.ones(784, 784)), nn.Parameter(torch.ones(784))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.SiLU(), "aten.silu.default"),
        (nn.GELU(approximate="tanh"), "aten.gelu.default"),
        (Function(lambda x, _: x.flip(2)), "aten.flip.default"),
        (nn.Conv2d(1, 2, 3, dilation=2), "aten.conv2d.default"),
        (nn.Conv2d(1, 2, 3, padding="same"), "aten.conv2d.padding"),
        (nn.MaxPool2d(3, padding=1), "aten.max_pool2d.default"),
        (nn.MaxPool2d(3, ceil_mode=True), "aten.max_pool2d.default"),
        (nn.Flatten(2), "aten.flatten.using_ints"),
        (nn.Linear(28, 28), "aten.linear.default"),
        (nn.Softmax(dim=1), "aten.softmax.int"),
        (nn.ReLU(inplace=True), "aten.relu_.default"),
        (Function(lambda x, _: dropout(x)), "aten.dropout.default"),
        (Function(lambda x, _: x.half().float()), "aten.to.dtype"),
        (Function(lambda x, _: x + x.mean(dim=(2, 3), keepdim=True)), "aten.mean.dim"),
        (Function(lambda x, _: x + x[:, :, :1]), "aten.slice.Tensor"),
        (Function(lambda x, _: x + nn.functional.max_pool2d(x, 28)), "aten.add.Tensor"),
        (Function(lambda x, own: x + own.constant), "aten.add.Tensor"),
        (Function(lambda x, own: x / own.constant), "aten.div.Tensor"),
        (
            Function(lambda x, own: nn.functional.linear(x.flatten(1), own.weight.to(x.dtype), own.bias)),
            "aten.to.dtype",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_operation_is_refused_by_name_and_layer(layer: nn.Module, name: str) -> None:
    network = Network(layer)
    network(torch.zeros(2, 1, 28, 28))
    with pytest.raises(ValueError, match=f"^a page cannot compute {name} of layer: export to .onnx or .pt2 instead$"):
        describe_network_of(network)
