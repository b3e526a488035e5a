"""A lesson: a fraction of the training labels is wrong, those of the validation images are right.

Run `python docs/lessons/label_noise.py 0.5`.
"""

from argparse import ArgumentParser

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Generator
from torch.utils.data import Subset

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.datasets.sampling import InMemoryDataset


class NoisyLabels(MNISTDataModule):
    """MNIST, with a fraction of its training labels replaced by another class, each equally likely."""

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.fraction = fraction

    def setup(self, stage: str) -> None:
        """Read the sets of a stage, and replace labels of those to train on."""
        super().setup(stage)
        if stage == "fit":
            pixels, labels = self.train_set.dataset[self.train_set.indices]  # (55000, 1, 28, 28), (55000,)
            generator = Generator().manual_seed(0)
            others = (labels + torch.randint(1, 10, labels.shape, generator=generator)) % 10
            replaced = torch.rand(len(labels), generator=generator) < self.fraction
            noisy = InMemoryDataset(pixels, torch.where(replaced, others, labels))
            self.train_set = Subset(noisy, range(len(labels)))


def measure(fraction: float, seed: int) -> dict[str, float]:
    """Train for one epoch, and return the accuracy on the given training labels and on right ones."""
    seed_everything(seed, verbose=False)
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.fit(DigitClassifier(), NoisyLabels(fraction))
    return {name: float(trainer.callback_metrics[name]) for name in ("train/accuracy", "val/accuracy")}


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("fraction", type=float, help="of the training labels that are wrong, 0 to 1")
    parser.add_argument("--seed", type=int, default=777)
    given = parser.parse_args()
    if not 0 <= given.fraction <= 1:
        parser.error(f"the fraction must be from 0 to 1, got {given.fraction}")
    for name, accuracy in measure(given.fraction, given.seed).items():
        print(f"{name:<15} {accuracy:.2%}")
