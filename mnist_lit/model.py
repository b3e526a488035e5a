"""The network: pixels in, logits out."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["CNN", "DIGITS", "SIDE", "Batch"]

SIDE = 28  # pixels
DIGITS = 10
Batch = tuple[Tensor, Tensor]
"""Pixels uint8 (B, 1, 28, 28), 0-255, and labels int64 (B,), 0-9."""


def conv_block(
    inputs: int, outputs: int, *, convolutions: int, kernel_size: int, padding: int, batch_norm: bool
) -> nn.Sequential:
    """3x3 convolutions, each with ReLU, the last with 2x2 max-pooling: halves the side.

    Pooling comes before ReLU: the result is the same, since a maximum commutes with any function that never falls, and
    ReLU has a quarter of the work. Before batch normalisation it is another network, as good and faster.

    Args:
        inputs: channels that come in.
        outputs: channels of each convolution.
        convolutions: how many there are.
        kernel_size: side of the first one's filters.
        padding: of the first one.
        batch_norm: whether batches are normalised before each ReLU (Ioffe & Szegedy 2015, arXiv:1502.03167).
    """
    layers: list[nn.Module] = []
    for number in range(convolutions):
        if number == 0:
            layers.append(nn.Conv2d(inputs, outputs, kernel_size, padding=padding, bias=not batch_norm))
        else:
            layers.append(nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=not batch_norm))
        if number == convolutions - 1:
            layers.append(nn.MaxPool2d(2))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class CNN(nn.Sequential):
    """Convolution blocks `layer1`, `layer2`, … and one linear layer `fc`, whose weight starts Xavier-uniform.

    The default is the blog's network, with its parameter names and, for the same seed, its initial weights.

    Args:
        channels: filters of each block.
        convolutions: 3x3 convolutions of each block, one or more; by default one.
        kernel_size: side of the first convolution's filters, an odd number.
        padded: whether the first convolution keeps the side of 28 pixels; without, it works on whole patches only.
        batch_norm: whether batches are normalised after each convolution.
        dropout: share of the last features that training leaves out at random (Srivastava et al. 2014).

    Raises:
        ValueError: if a setting is out of range, or there are more blocks than the side can be halved.

    >>> CNN()(torch.zeros(5, 1, 28, 28, dtype=torch.uint8)).shape
    torch.Size([5, 10])
    """

    fc: nn.Linear

    def __init__(
        self,
        channels: Sequence[int] = (32, 64),
        *,
        convolutions: Sequence[int] | None = None,
        kernel_size: int = 3,
        padded: bool = True,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        convolutions = convolutions or [1] * len(channels)
        _check(channels, convolutions, kernel_size, dropout)
        padding = kernel_size // 2 if padded else 0
        side = SIDE - kernel_size + 1 + 2 * padding >> len(channels)
        if side < 1:
            raise ValueError(f"channels: {len(channels)} blocks halve {SIDE} pixels to nothing, got {list(channels)}")
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (inputs, outputs, number) in enumerate(zip((1, *channels), channels, convolutions, strict=False)):
            first = {"kernel_size": 3 if i else kernel_size, "padding": 1 if i else padding}
            blocks[f"layer{i + 1}"] = conv_block(inputs, outputs, convolutions=number, batch_norm=batch_norm, **first)
        blocks["flatten"] = nn.Flatten()
        if dropout:
            blocks["dropout"] = nn.Dropout(dropout)
        blocks["fc"] = nn.Linear(channels[-1] * side * side, DIGITS)
        super().__init__(blocks)
        nn.init.xavier_uniform_(self.fc.weight)
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
        training = self.training
        shapes: list[tuple[int, ...]] = [(1, SIDE, SIDE)]

        def note(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if (shape := tuple(output.shape[1:])) != shapes[-1]:
                shapes.append(shape)

        hooks = [layer.register_forward_hook(note) for layer in self.modules() if not isinstance(layer, nn.Sequential)]
        try:
            with torch.no_grad():
                self.eval()(torch.zeros(1, *shapes[0], device=self.fc.weight.device))
        finally:
            self.train(training)
            for hook in hooks:
                hook.remove()
        return shapes


def _check(channels: Sequence[int], convolutions: Sequence[int], kernel_size: int, dropout: float) -> None:
    if not channels or min(channels) < 1:
        raise ValueError(f"channels must be one or more positive numbers, got {list(channels)}")
    if len(convolutions) != len(channels) or min(convolutions) < 1:
        raise ValueError(f"convolutions must be {len(channels)} positive numbers, got {list(convolutions)}")
    if not 1 <= kernel_size <= SIDE or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be an odd number up to {SIDE - 1}, got {kernel_size}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout}")
