"""What the blog's test on pixels 0-255 costs a network that was trained on pixels 0-1.

Run `python tests/benchmarks/raw_pixels.py runs/blog`, after `recipes.py blog`. The figures are in
`docs/from-loop-to-lightning.md`.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from statistics import mean

import torch
from measure import save

from mnist_lit import DigitClassifier
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.runs.series import find_runs


def main() -> None:
    """Test the network of each seed twice, and print its accuracies."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, metavar="FOLDER", help="of the runs, runs/NAME")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    given = parser.parse_args()
    MNIST.fetch(given.data_dir)
    pixels, labels = MNIST.read(given.data_dir, train=False)
    runs = find_runs(given.experiment)
    networks = [DigitClassifier.load_from_checkpoint(run.checkpoints / "best.ckpt").eval() for run in runs]
    found = {}
    for name, factor in (("0-1", 1), ("0-255", 255)):  # the network divides by 255
        with torch.inference_mode():
            answers = [
                torch.cat([network(part * float(factor)) for part in torch.split(pixels, 500)]) for network in networks
            ]
        found[name] = [(answer.argmax(dim=1) == labels).float().mean().item() for answer in answers]
        print(f"pixels {name}: {mean(found[name]):.2%} ({', '.join(f'{accuracy:.2%}' for accuracy in found[name])})")
    save("raw_pixels", {"test_accuracy": found})


if __name__ == "__main__":
    main()
