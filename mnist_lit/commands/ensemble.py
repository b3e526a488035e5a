"""Several classifiers as one, which averages their probabilities."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from mnist_lit.classifier import DigitClassifier

__all__ = ["Ensemble", "average", "explain_calibration"]


class Ensemble(nn.Module):
    """A network whose probabilities are the mean of those of several classifiers, each with its own temperature.

    (Hansen & Salamon 1990, doi:10.1109/34.58871.)

    Args:
        classifiers: with the same classes.
    """

    def __init__(self, classifiers: Sequence[DigitClassifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(classifier.network for classifier in classifiers)
        self.temperatures = [float(classifier.temperature) for classifier in classifiers]

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255, (N, C, H, W), to logits (N, K), the logarithm of the sum of all probabilities.

        Sums of logarithms, since a probability may be too small for float32.
        """
        pairs = zip(self.members, self.temperatures, strict=True)
        scaled = (network(pixels).float() / temperature for network, temperature in pairs)
        total: Tensor = reduce(torch.logaddexp, (logits.log_softmax(dim=1) for logits in scaled))
        return total


def average(classifiers: Sequence[DigitClassifier]) -> DigitClassifier:
    """Return a classifier that averages the probabilities of others; its settings are those of the first."""
    joint = DigitClassifier(**classifiers[0].hparams)
    joint.network = Ensemble(classifiers)  # type: ignore[assignment]  # any network serves
    return joint


def explain_calibration(classifier: DigitClassifier) -> str | None:
    """Return why the probabilities are not calibrated, or None if they are."""
    if isinstance(classifier.network, Ensemble):
        return "an ensemble: the probabilities are means of several, and a little too low"
    if classifier.temperature == 1:
        return "trained without validation, or with too few images of it: the probabilities are not calibrated"
    return None
