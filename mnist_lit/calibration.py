"""Probabilities: a network with its temperature, which needs no Lightning."""

import torch
from torch import Tensor, nn

__all__ = ["CalibratedNetwork", "count_parameters"]


class CalibratedNetwork(nn.Module):
    """A network and its temperature, in evaluation mode: what predicts and is exported.

    Args:
        network: maps pixels 0-255, (N, C, H, W), to logits (N, K).
        temperature: temperature by which the logits are divided, (); 1 if there was no validation to fit it to.
    """

    temperature: Tensor

    def __init__(self, network: nn.Module, temperature: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("temperature", temperature)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255, as in the data set, (N, C, H, W), to probabilities (N, K)."""
        logits: Tensor = self.network(pixels)
        return (logits / self.temperature).softmax(dim=1)

    @torch.inference_mode()
    def classify(self, pixels: Tensor, batch_size: int) -> Tensor:
        """Return the probabilities of any number of images, computed in batches."""
        return torch.cat([self(batch) for batch in torch.split(pixels, batch_size)])

    @property
    def uncalibrated(self) -> str | None:
        """Why the probabilities are not calibrated, or None if they are."""
        if self.temperature == 1:
            return "no validation of 100 or more images has fitted a temperature: the probabilities are not calibrated"
        return None


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
