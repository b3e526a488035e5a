"""What each choice of `configs/cifar10.yaml` brings after two epochs, on 5,000 validation images, over the same seeds.

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
FLAGS = ["--data.val_size=5000", "--trainer.max_epochs=2", "--trainer.precision=bf16-mixed"]
CHOICES = {
    "cifar10.yaml": [],
    "ReLU": ["--model.activation=relu"],
    "one view": ["--model.views=1"],
    "no mirror images in training": ["--data.flip=false"],
    "no shifts": ["--data.crop=0"],
    "label smoothing of 0.1": ["--model.label_smoothing=0.1"],
    "schedule one_cycle": ["--model.schedule=one_cycle"],
    "weight decay 0.1": ["--model.weight_decay=0.1"],
    "Adam, rate 0.006": [
        "--model.optimizer=adam",
        "--model.learning_rate=0.006",
        "--model.betas=[0.9,0.99]",
        "--model.weight_decay=0",
    ],
    "SGD, rate 0.5": ["--model.optimizer=sgd", "--model.learning_rate=0.5", "--model.weight_decay=0.0005"],
    "SGD, rate 0.1": ["--model.optimizer=sgd", "--model.learning_rate=0.1", "--model.weight_decay=0.0005"],
    "averaged weights": [
        "--trainer.callbacks=lightning.pytorch.callbacks.EMAWeightAveraging",
        "--trainer.callbacks.decay=0.98",
        "--trainer.callbacks.use_buffers=false",  # the first running variances would stay in a mean of a few epochs
    ],
    "64, 128 and 256 filters, three epochs": [
        "--model.channels=[24,64,64,128,128,256,256]",
        "--trainer.max_epochs=3",
    ],
}


if __name__ == "__main__":
    folder = f"--data.dataset={Path(sys.argv[2]).resolve()}"
    benchmark(partial(measure, choices=CHOICES, common=[f"--config={CONFIG}", folder, *FLAGS]), 2)
