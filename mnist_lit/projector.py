"""What TensorBoard's projector shows: digits by what the network makes of them."""

from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["write_projection"]

COMPONENTS = 50  # the first ones; all of a digit's features would be 30 kB of text
FOLDER = "projector"  # where torch would name one after the step


def write_projection(writer: "SummaryWriter", features: Tensor, names: Sequence[str], pixels: Tensor) -> None:
    """Write features as their principal components, in place of what was there.

    Args:
        writer: of the run.
        features: (N, F).
        names: N labels.
        pixels: of the thumbnails, 0-255, (N, 1, H, W).
    """
    folder = Path(writer.log_dir)
    rmtree(folder / FOLDER, ignore_errors=True)  # of a test that was interrupted, or after fewer epochs
    (folder / "projector_config.pbtxt").unlink(missing_ok=True)
    along, length, _ = torch.pca_lowrank(features.float(), min(COMPONENTS, *features.shape))  # (N, 50), (50,)
    writer.add_embedding(along * length, names, 1 - pixels / 255, FOLDER, "test")
