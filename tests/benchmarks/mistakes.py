"""The test digits that a recipe does not read with any seed, or with few.

Run `python tests/benchmarks/mistakes.py runs/best`, after `recipes.py best`: prints them, and draws those of
`docs/mistakes.md`. The recipe is not changed by what is seen here.
"""

import torch
from measure import TRAIN
from trained import read_experiment

from mnist_lit.calibration import CalibratedNetwork
from mnist_lit.training.drawings import draw_images

PICTURE = TRAIN.parent / "docs" / "misread.png"
COLUMNS = 7
LEAST = 0.5  # fraction of the seeds that misread a digit that is shown


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
