"""How sure the network may be: a temperature that makes its probabilities as high as it is often right."""

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

__all__ = ["BestTemperature", "calibrated"]

COOLEST, HOTTEST = 0.2, 5.0
"""Where all of few images are right, no temperature would be too cool: it says nothing of others."""


def calibrated(logits: Tensor, temperature: Tensor) -> Tensor:
    """Return probabilities (N, K) from logits (N, K) and a temperature ()."""
    return (logits / temperature).softmax(dim=1)


class BestTemperature(Metric):
    """The number that logits are best divided by: the one for which their cross-entropy is least.

    It changes no answer, only how sure it is (Guo et al. 2017, arXiv:1706.04599). It is found on images that were not
    trained on.

    >>> import torch
    >>> best = BestTemperature()
    >>> best.update(torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 0, 0, 1]))
    >>> round(float((2 / best.compute()).sigmoid()), 3)  # right three times of four
    0.75
    """

    full_state_update = False
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take a batch: logits (B, K) and labels (B,)."""
        self.logits.append(logits.float())
        self.labels.append(labels)

    def compute(self) -> Tensor:
        """Return the temperature (), float32 on the CPU, by Newton's method: the loss is convex in its inverse."""
        # On the CPU: other devices, as Apple's, may have no float64. In two steps, since one would convert there.
        logits = dim_zero_cat(self.logits).cpu().double()  # (N, K)
        labels = dim_zero_cat(self.labels).cpu()  # (N,)
        right = logits.gather(1, labels[:, None])[:, 0]
        inverse = logits.new_ones(())
        for _ in range(20):
            shares = (inverse * logits).softmax(dim=1)
            mean = (shares * logits).sum(dim=1)
            variance = (shares * logits.square()).sum(dim=1) - mean.square()
            step = (right - mean).mean() / variance.mean().clamp(min=1e-9)
            inverse = (inverse + step.clamp(-inverse / 2, inverse)).clamp(1 / HOTTEST, 1 / COOLEST)
        return (1 / inverse).float()
