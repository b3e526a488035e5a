"""Tell digits from anything else, by a small network of its own, whichever network reads the digits."""

from collections import OrderedDict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["MAX_NOVELTY", "WEIGHTS", "NoveltyNetwork"]

WEIGHTS = Path(__file__).with_name("novelty.npz")
"""Written by `tests/reader/train_novelty.py`, which describes the images and reports how often the network is right."""
MAX_NOVELTY = 0.6
"""Images above it are marked as perhaps not a digit: 1 or 2 of 100 photographed digits, and nearly all letters
(`docs/reader.md`)."""


class NoveltyNetwork(nn.Sequential):
    """A network for eleven classes: the ten digits, and drawings of anything else, on which it was trained as well.

    (Hendrycks et al. 2019, arXiv:1812.04606.) It does not use `CNN`, which people replace.
    """

    def __init__(self) -> None:
        super().__init__(
            OrderedDict(
                layer1=nn.Sequential(nn.Conv2d(1, 16, 5, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(16), nn.ReLU()),
                layer2=nn.Sequential(
                    *(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
                    *(nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(32), nn.ReLU()),
                ),
                layer3=nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
                flatten=nn.Flatten(),
                dropout=nn.Dropout(0.3),
                fc=nn.Linear(32 * 6 * 6, 11),
            )
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255, (N, 1, 28, 28), to logits (N, 11)."""
        x = pixels.float() / 255
        for layer in self:
            x = layer(x)
        return x

    @classmethod
    @cache
    def load(cls) -> "NoveltyNetwork":
        """Return the trained network, which is read once: each sheet with close strokes asks for it."""
        network = cls()
        with np.load(WEIGHTS, allow_pickle=False) as file:
            network.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})
        return network.eval()

    @torch.inference_mode()
    def novelty(self, pixels: Tensor) -> Tensor:
        """Return the probability that an image is not a digit, (N,), for pixels 0-255, (N, 1, 28, 28)."""
        return self._classify(pixels)[:, -1]

    @torch.inference_mode()
    def digit(self, pixels: Tensor) -> Tensor:
        """Return the probability of the likeliest digit, (N,), for pixels 0-255, (N, 1, 28, 28)."""
        return self._classify(pixels)[:, :-1].amax(dim=1)

    def _classify(self, pixels: Tensor) -> Tensor:
        return torch.cat([self(part).softmax(dim=1) for part in torch.split(pixels, 1_000)])  # (N, 11)
