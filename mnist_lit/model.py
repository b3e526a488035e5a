"""The network: pixels in, logits out."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["CNN", "DIGITS", "SIDE", "Batch"]

SIDE = 28  # pixels
DIGITS = 10
MAX_BLOCKS = 4  # 28 pixels halve to 14, 7, 3, 1
Batch = tuple[Tensor, Tensor]
"""Pixels uint8 (B, 1, 28, 28), 0-255, and labels int64 (B,), 0-9."""


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution, 2x2 max-pool, ReLU: halves the side.

    Pooling comes before ReLU: the result is the same, since a maximum commutes with any function that never falls, and
    ReLU has a quarter of the work.
    """
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=3, padding=1), nn.MaxPool2d(2), nn.ReLU())


class CNN(nn.Sequential):
    """Convolution blocks `layer1`, `layer2`, … and one linear layer `fc`, whose weight starts Xavier-uniform.

    The default is the blog's network, with its parameter names and, for the same seed, its initial weights.

    Args:
        channels: filters of each block, one to four blocks.

    Raises:
        ValueError: if `channels` is empty, too long or not positive.

    >>> CNN()(torch.zeros(5, 1, 28, 28, dtype=torch.uint8)).shape
    torch.Size([5, 10])
    """

    fc: nn.Linear

    def __init__(self, channels: Sequence[int] = (32, 64)) -> None:
        if not 1 <= len(channels) <= MAX_BLOCKS or min(channels) < 1:
            raise ValueError(f"channels must be one to {MAX_BLOCKS} positive numbers, got {list(channels)}")
        blocks = {
            f"layer{i}": conv_block(inputs, outputs)
            for i, (inputs, outputs) in enumerate(zip((1, *channels), channels, strict=False), start=1)
        }
        side = SIDE >> len(channels)
        fc = nn.Linear(channels[-1] * side * side, DIGITS)
        nn.init.xavier_uniform_(fc.weight)
        super().__init__(OrderedDict(**blocks, flatten=nn.Flatten(), fc=fc))
        # The layout that CPU convolutions and pooling are fastest in: 1.6 times the default layout's steps a second.
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255 of any dtype, (N, 1, 28, 28), to logits (N, 10).

        Scaling to 0-1 is part of the network, so that training, testing, prediction and export cannot disagree on it.
        """
        x = pixels.to(self.fc.weight.dtype) / 255  # (N, 1, 28, 28), 0-1
        for layer in self:
            x = layer(x)  # (N, 32, 14, 14), (N, 64, 7, 7), (N, 3136), (N, 10)
        return x

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes that one digit takes on its way through the layers, where they change."""
        shapes: list[tuple[int, ...]] = [(1, SIDE, SIDE)]

        def note(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if (shape := tuple(output.shape[1:])) != shapes[-1]:
                shapes.append(shape)

        hooks = [layer.register_forward_hook(note) for layer in self.modules() if not isinstance(layer, nn.Sequential)]
        try:
            with torch.no_grad():
                self(torch.zeros(1, *shapes[0], device=self.fc.weight.device))
        finally:
            for hook in hooks:
                hook.remove()
        return shapes
