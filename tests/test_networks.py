"""Any module that maps pixels to logits can replace `CNN`: every command works with it."""

from collections.abc import Sequence

import pytest
from conftest import RUN, SHORT, Command
from test_other_images import check_other_commands
from torch import Tensor, nn

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.runs.checkpoints import Checkpoint

FLAGS = [*(flag for flag in SHORT if "channels" not in flag), "--trainer.max_epochs=1"]


class MLP(nn.Module):
    """A multilayer perceptron.

    Args:
        hidden: number of hidden units.
        shape: of an image, (C, H, W).
        classes: number of classes.
    """

    def __init__(self, hidden: int = 16, *, shape: Sequence[int] = MNIST.shape, classes: int = 10) -> None:
        super().__init__()
        pixels = shape[0] * shape[1] * shape[2]
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layers(pixels / 255)
        return logits


class ResidualNetwork(nn.Module):
    """A convolution, a residual block and a linear layer, whose last operations are no modules.

    Args:
        width: number of channels.
        shape: of an image, (C, H, W).
        classes: number of classes.
    """

    def __init__(self, width: int = 4, *, shape: Sequence[int] = MNIST.shape, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(shape[0], width, 5, stride=2, padding=2)
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.head = nn.Linear(width, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.stem(pixels / 255).relu()
        x = (x + self.block(x)).relu()
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits * 1.0


def test_every_command_works_with_another_network(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_lit.classifier.CNN", MLP)
    out = command.succeed("fit", *FLAGS, "--model.hidden=8")
    assert "(1, 28, 28) → 784 → 8 → 10" in out
    code, _, err = command("fit", *FLAGS, "--model.hiden=3")
    assert (code, err.startswith("error: no flag --model.hiden")) == (2, True)

    assert command("fit", "--ckpt_path=last", "--trainer.max_epochs=2")[::2] == (0, "")
    assert Checkpoint.read(RUN.checkpoints / "last.ckpt").content["epoch"] == 1
    check_other_commands(command, 10_000, MNIST.shape, "digit", *(f"p{digit}" for digit in range(10)))
