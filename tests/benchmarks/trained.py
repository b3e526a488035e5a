"""The networks that `recipes.py` has trained, and the test images."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from torch import Tensor

from mnist_lit import DigitClassifier
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.studies.seeds import find_runs

__all__ = ["read_experiment"]


def read_experiment(description: str | None) -> tuple[list[DigitClassifier], Tensor, Tensor]:
    """Return the classifier of each run in the folder of the command line, pixels (N, 1, 28, 28) and labels (N,).

    Args:
        description: of the program, for its help.
    """
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, metavar="FOLDER", help="of the runs, runs/NAME")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    given = parser.parse_args()
    MNIST.fetch(given.data_dir)
    pixels, labels = MNIST.read(given.data_dir, train=False)
    paths = [run.checkpoints / "best.ckpt" for run in find_runs(given.experiment)]
    return [DigitClassifier.load_from_checkpoint(path, weights_only=True).eval() for path in paths], pixels, labels
