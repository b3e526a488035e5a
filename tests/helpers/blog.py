"""The blog's network as its post describes it: the reference that this project's must equal."""

from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["BlogCNN"]


class BlogCNN(nn.Module):
    """Default layout, ReLU before pooling, pixels 0-1."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(1, 32, 3, stride=1, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2))
        self.layer2 = nn.Sequential(nn.Conv2d(32, 64, 3, stride=1, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2))
        self.fc = nn.Linear(7 * 7 * 64, 10)
        nn.init.xavier_uniform_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, 28, 28) to (N, 10)."""
        out = self.layer2(self.layer1(x))  # (N, 64, 7, 7)
        return cast("Tensor", self.fc(torch.flatten(out, 1)))
