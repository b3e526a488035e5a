"""The network: pixels in, logits out."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["CNN", "DIGITS", "SIDE", "Batch"]

SIDE = 28  # pixels
DIGITS = 10
MOST = 100_000_000
"""Weights and features of one image: a gigabyte or two in training. A checkpoint may ask for any number of them."""
Batch = tuple[Tensor, Tensor]
"""Pixels uint8 (B, 1, 28, 28), 0-255, and labels int64 (B,), 0-9."""


def conv_block(
    inputs: int, outputs: int, *, convolutions: int, kernel_size: int, padding: int, pooling: int, batch_norm: bool
) -> nn.Sequential:
    """Convolutions, each with ReLU, the last one with max-pooling.

    Pooling comes before ReLU: the result is the same, since a maximum commutes with any function that never falls, and
    ReLU has a quarter of the work. Before batch normalisation it is another network, as good and faster.

    Args:
        inputs: channels that come in.
        outputs: channels of each convolution.
        convolutions: how many there are.
        kernel_size: side of their filters.
        padding: zeros around what comes into each of them.
        pooling: side of the squares of which the maximum is taken; 1 takes none.
        batch_norm: whether batches are normalised before each ReLU (Ioffe & Szegedy 2015, arXiv:1502.03167).
    """
    layers: list[nn.Module] = []
    for number in range(convolutions):
        channels = outputs if number else inputs
        layers.append(nn.Conv2d(channels, outputs, kernel_size, padding=padding, bias=not batch_norm))
        if number == convolutions - 1 and pooling > 1:
            layers.append(nn.MaxPool2d(pooling))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class CNN(nn.Sequential):
    """Convolution blocks `layer1`, `layer2`, … and one linear layer `fc`, whose weight starts Xavier-uniform.

    The default is the blog's network, with its parameter names and, for the same seed, its initial weights.

    Args:
        channels: filters of each block.
        convolutions: how many convolutions each block has; by default one.
        kernel_sizes: side of the filters in each block, in pixels; by default 3.
        padding: zeros around what comes into the convolutions of each block, in pixels; by default as many as keep the
            side.
        pooling: side of the squares that each block ends with the maximum of, 1 for none; by default 2, which halves
            the side.
        batch_norm: whether batches are normalised after each convolution.
        dropout: share of the last features that training leaves out at random (Srivastava et al. 2014).

    Raises:
        ValueError: if a setting is out of range, or the blocks leave nothing of an image.

    >>> CNN()(torch.zeros(5, 1, 28, 28, dtype=torch.uint8)).shape
    torch.Size([5, 10])
    """

    fc: nn.Linear

    def __init__(
        self,
        channels: Sequence[int] = (32, 64),
        *,
        convolutions: Sequence[int] | None = None,
        kernel_sizes: Sequence[int] | None = None,
        padding: Sequence[int] | None = None,
        pooling: Sequence[int] | None = None,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        kernel_sizes = kernel_sizes or [3] * len(channels)
        by_block = {
            "channels": channels,
            "convolutions": convolutions or [1] * len(channels),
            "kernel_sizes": kernel_sizes,
            "padding": padding or [size // 2 for size in kernel_sizes],
            "pooling": pooling or [2] * len(channels),
        }
        for name, values in by_block.items():
            least = 0 if name == "padding" else 1
            if len(values) != max(len(channels), 1) or min(values) < least:
                kind = f"{len(channels)} numbers, one for each block, of at least {least}"
                raise ValueError(f"{name} must be {kind if channels else 'one or more numbers'}, got {list(values)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout}")

        side, inputs, numbers = SIDE, 1, 0
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (outputs, number, size, zeros, square) in enumerate(zip(*by_block.values(), strict=True), start=1):
            broadest = max(side, side + number * (2 * zeros + 1 - size))
            side = (side + number * (2 * zeros + 1 - size)) // square
            if side < 1:
                raise ValueError(f"channels {list(channels)}: block {i} leaves nothing of {SIDE} pixels")
            # Those of the linear layer are counted too, and 100,000 for what a layer is apart from its weights.
            numbers += number * (outputs * (max(inputs, outputs) * size**2 + DIGITS * broadest**2) + 100_000)
            if numbers > MOST:
                raise ValueError(f"channels {list(channels)}: block {i} is too large: some {numbers:.0e} numbers")
            block = {"convolutions": number, "kernel_size": size, "padding": zeros, "pooling": square}
            blocks[f"layer{i}"] = conv_block(inputs, outputs, **block, batch_norm=batch_norm)
            inputs = outputs
        blocks["flatten"] = nn.Flatten()
        if dropout:
            blocks["dropout"] = nn.Dropout(dropout)
        blocks["fc"] = nn.Linear(inputs * side * side, DIGITS)
        super().__init__(blocks)
        nn.init.xavier_uniform_(self.fc.weight)
        # The layout that CPU convolutions and pooling are fastest in: 1.6 times the default layout's steps a second.
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255 of any dtype, (N, 1, 28, 28), to logits (N, 10).

        Scaling to 0-1 is part of the network, so that training, testing, prediction and export cannot disagree on it.
        """
        logits: Tensor = self.fc(self.features(pixels))  # (N, 10)
        return logits

    def features(self, pixels: Tensor) -> Tensor:
        """Map pixels, as `forward` takes them, to what the linear layer weighs, (N, 3136)."""
        x = pixels.to(self.fc.weight.dtype) / 255  # (N, 1, 28, 28), 0-1
        for layer in list(self)[:-1]:
            x = layer(x)  # (N, 32, 14, 14), (N, 64, 7, 7), (N, 3136)
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
