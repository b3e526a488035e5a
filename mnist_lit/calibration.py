"""Probabilities: a network with its temperature, which needs no Lightning."""

import torch
from torch import Tensor, nn

__all__ = ["CalibratedNetwork", "calibrated_softmax"]


def calibrated_softmax(logits: Tensor, temperature: Tensor) -> Tensor:
    """Return probabilities (N, K) from logits (N, K) and a temperature ()."""
    return (logits / temperature).softmax(dim=1)


class CalibratedNetwork(nn.Module):
    """A network and its temperature, in evaluation mode: what predicts and is exported.

    Args:
        network: maps pixels 0-255, (N, C, H, W), to logits (N, K).
        temperature: by which they are divided, ().
    """

    temperature: Tensor

    def __init__(self, network: nn.Module, temperature: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("temperature", temperature)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255, as in the data set, (N, C, H, W), to probabilities (N, K)."""
        return calibrated_softmax(self.network(pixels), self.temperature)

    @torch.inference_mode()
    def classify(self, pixels: Tensor, batch_size: int) -> Tensor:
        """Return the probabilities of any number of images, computed in batches."""
        return torch.cat([self(batch) for batch in torch.split(pixels, batch_size)])
