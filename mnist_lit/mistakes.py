"""What was read wrong: kept while a set is evaluated, and put in order, worst first."""

import torch
from torch import Tensor, distributed

from mnist_lit.model import DIGITS, SIDE

__all__ = ["Mistakes"]

Found = tuple[Tensor, Tensor, Tensor]
"""Pixels (N, 1, 28, 28), labels (N,) and probabilities (N, 10)."""


class Mistakes:
    """The images of an evaluation that are read wrong."""

    def __init__(self) -> None:
        self.found: list[Found] = []

    def add(self, pixels: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Keep those of a batch, (B, 1, 28, 28), (B,) and (B, 10)."""
        wrong = logits.argmax(dim=1) != labels
        if wrong.any():
            probabilities = logits[wrong].float().softmax(dim=1)
            self.found.append((pixels[wrong].cpu(), labels[wrong].cpu(), probabilities.cpu()))

    def worst(self, number: int) -> Found:
        """Return up to so many of all processes' mistakes, those first in which the truth was least expected."""
        everyone = [self.found]
        if distributed.is_initialized():
            everyone = [[] for _ in range(distributed.get_world_size())]
            distributed.all_gather_object(everyone, self.found)
        nothing = torch.zeros(0, 1, SIDE, SIDE), torch.zeros(0, dtype=torch.int64), torch.zeros(0, DIGITS)
        found = [batch for process in everyone for batch in process] or [nothing]
        pixels, labels, probabilities = (torch.cat(parts) for parts in zip(*found, strict=True))
        order = probabilities[torch.arange(len(labels)), labels].argsort(stable=True)[:number]
        return pixels[order], labels[order], probabilities[order]
