"""A lesson: a network is trained on pixels 0-1 and evaluated on pixels that were scaled in another way.

Run `python docs/lessons/pixels.py`.
"""

from argparse import ArgumentParser
from collections.abc import Callable

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from mnist_lit import DigitClassifier, MNISTDataModule

MEAN, SD = 0.1307 * 255, 0.3081 * 255  # of the training images' pixels, 0-255

# The network divides pixels 0-255 by 255 itself. Pixels 255 times as large arrive in its first layer as 0-255.
SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "0 to 1, as in training": lambda pixels: pixels,
    "0 to 255": lambda pixels: pixels * 255,
    "0 to 0.1": lambda pixels: pixels / 10,
    "standardised: mean 0, sd 1": lambda pixels: (pixels - MEAN) / SD * 255,
    "-1 to 1": lambda pixels: pixels * 2 - 255,
    "inverted: black on white": lambda pixels: 255 - pixels,
}


def measure(seed: int) -> dict[str, float]:
    """Train for one epoch, and return the validation accuracy with each scale of the validation images' pixels."""
    seed_everything(seed, verbose=False)
    data, classifier = MNISTDataModule(), DigitClassifier()
    trainer = Trainer(
        max_epochs=1, limit_val_batches=0, logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    trainer.fit(classifier, data)

    pixels, labels = data.val_set.dataset[data.val_set.indices]
    classifier.eval()
    with torch.inference_mode():
        logits = {name: classifier(scale(pixels.float())) for name, scale in SCALES.items()}
    return {name: (found.argmax(dim=1) == labels).float().mean().item() for name, found in logits.items()}


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=777)
    for name, accuracy in measure(parser.parse_args().seed).items():
        print(f"{name:<28} {accuracy:.2%}")
