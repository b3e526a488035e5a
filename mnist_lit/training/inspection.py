"""What can be said of any network that maps pixels to logits: its parameters, and the shapes of its layers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["count_parameters", "layer_shapes"]

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
    modes = [(module, module.training) for module in network.modules()]
    hooks = [layer.register_forward_hook(record) for layer in network.modules() if not any(layer.children())]
    try:
        with torch.no_grad():
            logits: Tensor = network.eval()(torch.zeros(1, *shape, device=device))
    finally:
        for module, training in modes:
            module.training = training
        for hook in hooks:
            hook.remove()
    return shapes if shapes[-1] == logits.shape[1:] else [*shapes, tuple(logits.shape[1:])]
