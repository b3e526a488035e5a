"""The test digits that a recipe does not read with any seed, or with few.

Run `python tests/benchmarks/mistakes.py runs/best`, after `recipes.py best`: prints them, and draws those of
`docs/mistakes.md`. The recipe is not changed by what is seen here.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import torch
from measure import TRAIN
from torch import Tensor

from mnist_lit import DigitClassifier
from mnist_lit.calibration import CalibratedNetwork
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.studies.seeds import find_runs
from mnist_lit.training.drawings import draw_images

__all__ = ["read_experiment"]

PICTURE = TRAIN.parent / "docs" / "misread.png"
COLUMNS = 7
LEAST = 0.5  # fraction of the seeds that misread a digit that is shown


def read_experiment(description: str | None) -> tuple[list[DigitClassifier], Tensor, Tensor]:
    """Return the classifier of each run in the folder of the command line, test images (N, 1, 28, 28) and labels (N,).

    Args:
        description: of the program, for its help.
    """
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, metavar="FOLDER", help="of the runs, runs/NAME")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    given = parser.parse_args()
    MNIST.fetch(given.data_dir)
    pixels, labels = MNIST.read(given.data_dir, train=False)
    paths = [run.checkpoints / "best.ckpt" for run in find_runs(given.experiment)[0]]
    return [DigitClassifier.load_from_checkpoint(path, weights_only=True).eval() for path in paths], pixels, labels


def main() -> None:
    """Classify the test images with the run of each seed, print and draw what is misread."""
    classifiers, pixels, labels = read_experiment(__doc__)
    found = [CalibratedNetwork(one.network, one.temperature).classify(pixels, 500) for one in classifiers]
    probabilities = torch.stack(found)  # (runs, N, K)
    wrong = (probabilities.argmax(dim=2) != labels).sum(dim=0)  # (N,)
    joint = probabilities.mean(dim=0)  # (N, K)
    errors = (probabilities.argmax(dim=2) != labels).sum(dim=1).tolist()
    print(f"errors of each run: {errors}; of all together: {int((joint.argmax(dim=1) != labels).sum())}")
    for number in range(len(found), 0, -1):
        print(f"misread by {number} of {len(found)}: {int((wrong == number).sum())}")
    of_label = joint[torch.arange(len(labels)), labels]
    shown = (wrong >= LEAST * len(found)).nonzero()[:, 0]
    shown = shown[(-wrong[shown] + of_label[shown]).argsort()]  # most seeds first, then the least probable label
    captions = []
    for i in shown.tolist():
        guess = int(joint[i].index_fill(0, labels[i], 0).argmax())
        print(f"| {i} | {labels[i]} | {guess} | {wrong[i]} | {of_label[i]:.1%} |")
        captions.append(f"{i}\n{labels[i]} as {guess}\n{wrong[i]} of {len(found)}")
    draw_images(pixels[shown], captions, columns=COLUMNS).save(PICTURE)


if __name__ == "__main__":
    main()
