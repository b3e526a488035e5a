"""Any module that maps pixels to logits can replace `CNN`: every command works with it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import RUN, SHORT, Command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
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


@pytest.mark.parametrize(
    ("network", "flag", "shapes"),
    [
        (MLP, "--model.hidden=8", "(1, 28, 28) → 784 → 8 → 10"),
        pytest.param(ResidualNetwork, "--model.width=3", "(1, 28, 28) → (3, 14, 14) → 10", marks=pytest.mark.slow),
    ],
    ids=["MLP", "residual"],
)
def test_every_command_works_with_another_network(
    command: Command, monkeypatch: pytest.MonkeyPatch, network: type[nn.Module], flag: str, shapes: str
) -> None:
    monkeypatch.setattr("mnist_lit.classifier.CNN", network)
    code, out, err = command("fit", *FLAGS, flag)
    assert (code, err) == (0, "")
    assert shapes in out
    assert ("no filters" in out) == (network is MLP)
    code, _, err = command("fit", *FLAGS, "--model.hiden=3")
    assert (code, err.startswith("error: no flag --model.hiden")) == (2, True)

    events = EventAccumulator(str(RUN.folder)).Reload()
    assert events.Tags()["graph"]
    assert (RUN.folder / "projector").is_dir()
    assert command("fit", "--ckpt_path=last", "--trainer.max_epochs=2")[::2] == (0, "")
    assert Checkpoint.read(RUN.checkpoints / "last.ckpt").content["epoch"] == 1
    assert command("validate")[::2] == (0, "")
    assert command("test")[::2] == (0, "")
    assert RUN.results()["test"]["total"] == 10_000
    assert command("predict")[::2] == (0, "")
    assert len(Path(RUN.folder / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 10_001
    assert command("export", "--output=model.pt2")[::2] == (0, "")
    program = torch.export.load("model.pt2").module()
    assert program(torch.zeros(3, *MNIST.shape, dtype=torch.uint8)).shape == (3, 10)


def test_without_a_graph_of_a_network_that_cannot_be_traced_one_line_says_so(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Untraceable(MLP):
        def forward(self, pixels: Tensor) -> Tensor:
            if torch._C._get_tracing_state():  # noqa: SLF001
                raise RuntimeError("data-dependent")
            return super().forward(pixels)

    monkeypatch.setattr("mnist_lit.classifier.CNN", Untraceable)
    code, out, err = command("fit", *FLAGS)
    assert (code, err) == (0, "")
    assert "TensorBoard: no graph, the network cannot be traced: " in out
