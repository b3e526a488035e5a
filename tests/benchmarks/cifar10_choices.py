"""What each choice of `configs/cifar10.yaml` brings after four epochs, on 5,000 validation images, over the same seeds.

Run `python tests/benchmarks/cifar10_choices.py SEEDS FOLDER` with the images of CIFAR-10 as files in
`FOLDER/train/CLASS` and `FOLDER/test/CLASS`: about 45 minutes a seed on two cores that compute bfloat16. The test set
is not used.
"""

import sys
from functools import partial
from pathlib import Path

from choices import measure
from measure import TRAIN, benchmark

CONFIG = TRAIN.parent / "configs" / "cifar10.yaml"
FLAGS = ["--data.val_size=5000", "--trainer.max_epochs=4", "--trainer.precision=bf16-mixed"]
CHOICES = {
    "cifar10.yaml": [],
    "ReLU": ["--model.activation=relu"],
    "no mirror images at evaluation": ["--model.mirror=false"],
    "no mirror images in training": ["--data.flip=false"],
    "no shifts": ["--data.crop=0"],
    "label smoothing of 0.1": ["--model.label_smoothing=0.1"],
    "schedule one_cycle": ["--model.schedule=one_cycle"],
    "Adam": ["--model.optimizer=adam", "--model.learning_rate=0.006", "--model.betas=[0.9,0.99]"],
    "SGD": ["--model.optimizer=sgd", "--model.learning_rate=0.5", "--model.weight_decay=0.0005"],
    "channels 24-32-128-256, 5.7 epochs": [
        "--model.channels=[24,32,32,128,128,256,256]",
        "--trainer.max_epochs=6",
        "--trainer.limit_train_batches=0.95",
    ],
}


if __name__ == "__main__":
    folder = f"--data.dataset={Path(sys.argv[2]).resolve()}"
    benchmark(partial(measure, choices=CHOICES, common=[f"--config={CONFIG}", folder, *FLAGS]), 2)
