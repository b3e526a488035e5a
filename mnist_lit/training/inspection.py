"""What can be shown of any network that maps pixels to logits: the shapes, features and filters of its layers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["count_parameters", "first_filters", "last_features", "layer_shapes"]

Shape = tuple[int, ...]


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained numbers.

    >>> count_parameters(nn.Linear(4, 3))
    15
    """
    return sum(parameter.numel() for parameter in network.parameters())


def layer_shapes(network: nn.Module, shape: Sequence[int]) -> list[Shape]:
    """Return the shapes that an image has on its way through the layers, where they change.

    >>> layer_shapes(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU()), (1, 2, 2))
    [(1, 2, 2), (4,), (3,)]
    """
    shapes: list[Shape] = [tuple(shape)]

    def record(_layer: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and (changed := tuple(output.shape[1:])) != shapes[-1]:
            shapes.append(changed)

    device = next((parameter.device for parameter in network.parameters()), None)
    logits = _run(network, torch.zeros(1, *shape, device=device), record)
    return shapes if shapes[-1] == logits.shape[1:] else [*shapes, tuple(logits.shape[1:])]


def last_features(network: nn.Module, pixels: Tensor) -> Tensor:
    """Return the input of the layer that is called last, (N, F), for pixels 0-255, (N, C, H, W)."""
    inputs = [pixels]

    def record(_layer: nn.Module, arguments: tuple[Any, ...], _output: Any) -> None:
        inputs[:] = [argument for argument in arguments[:1] if isinstance(argument, Tensor)] or inputs

    _run(network, pixels, record)
    return inputs[0].flatten(1)


def first_filters(network: nn.Module) -> Tensor | None:
    """Return the weights of the first convolution, (F, C, K, K), or None if there is none, or C is neither 1 nor 3."""
    convolution = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    return convolution.weight.detach() if convolution and convolution.in_channels in {1, 3} else None


def _run(network: nn.Module, pixels: Tensor, record: Callable[..., None]) -> Tensor:
    """Run a network in evaluation mode, and call `record` with each layer, its arguments and its output."""
    modes = [(module, module.training) for module in network.modules()]
    hooks = [layer.register_forward_hook(record) for layer in network.modules() if not any(layer.children())]
    try:
        with torch.no_grad():
            logits: Tensor = network.eval()(pixels)
    finally:
        for module, training in modes:
            module.training = training
        for hook in hooks:
            hook.remove()
    return logits
