"""The trained network of the package, which reads digits where nothing was trained yet.

It is `configs/best.yaml` with its seed, exported by `mnist-lit export --output best.pt2`; its card tells its accuracy.
A program of `torch.export` needs no class of `model.py`, which may be replaced.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["CARD", "load_trained"]

PROGRAM = Path(__file__).with_name("best.pt2")
CARD = Path(f"{PROGRAM}.md")
BATCH_SIZE = 1_000  # images


def load_trained() -> Callable[[Tensor], Tensor]:
    """Return the network: it maps pixels 0-255, uint8 (N, 1, 28, 28), to calibrated probabilities (N, 10).

    Raises:
        ValueError: if this version of torch cannot read it.
    """
    try:
        network = torch.export.load(PROGRAM).module()
    except Exception as error:  # torch has no class of its own for programs of another version
        raise ValueError(f"torch {torch.__version__} cannot read {PROGRAM}: train a network with fit") from error

    @torch.inference_mode()
    def classify(pixels: Tensor) -> Tensor:
        return torch.cat([network(batch) for batch in torch.split(pixels, BATCH_SIZE)])

    return classify
