"""Several networks as one, which averages their probabilities."""

from collections.abc import Sequence
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor, nn

from mnist_lit.calibration import CalibratedNetwork
from mnist_lit.datasets.catalog import is_same
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.system.errors import UsageError

__all__ = ["Calibrated", "Ensemble", "average", "choose_members", "explain_calibration"]


class Calibrated(Protocol):
    """A `CalibratedNetwork` or a `DigitClassifier`."""

    @property
    def network(self) -> nn.Module:
        """Pixels to logits."""
        ...

    @property
    def temperature(self) -> Tensor:
        """By which the logits are divided, ()."""
        ...


class Ensemble(nn.Module):
    """A network whose probabilities are the mean of those of several, each with its own temperature.

    (Hansen & Salamon 1990, doi:10.1109/34.58871.)

    Args:
        members: with the same classes.
    """

    def __init__(self, members: Sequence[Calibrated]) -> None:
        super().__init__()
        self.members = nn.ModuleList(member.network for member in members)
        self.temperatures = [float(member.temperature) for member in members]

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255, (N, C, H, W), to logits (N, K), the logarithm of the sum of all probabilities.

        Sums of logarithms, since a probability may be too small for float32.
        """
        pairs = zip(self.members, self.temperatures, strict=True)
        scaled = (network(pixels).float() / temperature for network, temperature in pairs)
        total: Tensor = reduce(torch.logaddexp, (logits.log_softmax(dim=1) for logits in scaled))
        return total


def average(members: Sequence[Calibrated]) -> CalibratedNetwork:
    """Return the ensemble of several networks, or the only one."""
    first, *others = members
    if not others:
        return CalibratedNetwork(first.network, first.temperature)
    return CalibratedNetwork(Ensemble(members), torch.ones(()))


def choose_members(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints of different trainings, and print all: a training that was repeated counts once.

    Raises:
        UsageError: if they classify other images, or into other classes.
    """
    members: list[Checkpoint] = []
    for checkpoint in checkpoints:
        if twin := next((member for member in members if checkpoint.has_same_weights(member)), None):
            print(f"{checkpoint.path} has the same weights as {twin.path}, and does not count")
        else:
            print(f"checkpoint {checkpoint.path}")
            members.append(checkpoint)
    for member in members[1:]:
        _check_same_images(members[0], member)
    return members


def _check_same_images(first: Checkpoint, other: Checkpoint) -> None:
    datasets = [checkpoint.settings["data"]["dataset"] for checkpoint in (first, other)]
    if (first.shape, first.classes) != (other.shape, other.classes) or not is_same(*datasets):
        raise UsageError(
            f"{first.path} classifies {datasets[0]} {first.shape} and {other.path} {datasets[1]} {other.shape}: "
            "an ensemble needs the same data set and image size"
        )


def explain_calibration(model: Calibrated) -> str | None:
    """Return why the probabilities are not calibrated, or None if they are."""
    if isinstance(model.network, Ensemble):
        return "an ensemble: the probabilities are means of several, and a little too low"
    if model.temperature == 1:
        return "trained without validation, or with too few images of it: the probabilities are not calibrated"
    return None
