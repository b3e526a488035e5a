"""Tell digits from anything else, by a small network of its own, whichever network reads the digits."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mnist_lit.model import CNN

__all__ = ["MAX_NOVELTY", "WEIGHTS", "NoveltyNetwork"]

WEIGHTS = Path(__file__).with_name("novelty.npz")
"""Written by `tests/benchmarks/novelty.py`, which describes the images, and reports how often the network is right."""
MAX_NOVELTY = 0.6
"""Of a digit: 1 or 2 of 100 photographed ones have more, and so have nearly all letters (`tests/benchmarks`)."""


class NoveltyNetwork(CNN):
    """A network for eleven classes: the digits, and drawings that are none, on which it was trained as well.

    (Hendrycks et al. 2019, arXiv:1812.04606.)
    """

    def __init__(self) -> None:
        super().__init__(
            [16, 32, 32],
            convolutions=[1, 2, 1],
            kernel_sizes=[5, 3, 3],
            padding=[0, 1, 1],
            pooling=[2, 2, 1],
            batch_norm=True,
            dropout=0.3,
            classes=11,
        )

    @classmethod
    def load(cls) -> "NoveltyNetwork":
        """Return the trained network."""
        network = cls()
        with np.load(WEIGHTS, allow_pickle=False) as file:
            network.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})
        return network.eval()

    @torch.inference_mode()
    def novelty(self, pixels: Tensor) -> Tensor:
        """Return the probability that an image is no digit, (N,); pixels 0-255, (N, 1, 28, 28)."""
        return torch.cat([self(part).softmax(dim=1)[:, -1] for part in torch.split(pixels, 1_000)])
