"""The fastest published recipe to 99 % that was found (tuomaso/train_mnist_fast), as a bare loop for a CPU.

Usage: `python tests/benchmarks/one_epoch.py DATA_DIR SEED`. Two convolutions with 24 and 32 filters, 256 hidden units,
Adam (0.7, 0.9) on one cycle up to 0.01, one epoch of batches of 256 in the files' order, pixels normalised beforehand.

Prints, as JSON, the seconds from the first step to the last, the test accuracy and how many parameters there are.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

from mnist_lit.datasets.catalog import DATASETS


def layers() -> Iterator[nn.Module]:
    """Yield the recipe's layers."""
    for inputs, outputs, side in ((1, 24, 5), (24, 32, 3)):
        yield from (nn.Conv2d(inputs, outputs, side), nn.MaxPool2d(2), nn.ReLU())
    yield from (nn.Flatten(), nn.Linear(32 * 5 * 5, 256), nn.ReLU(), nn.Linear(256, 10))


def load(*, train: bool) -> tuple[Tensor, Tensor]:
    """Return normalised pixels and labels."""
    pixels, labels = DATASETS["MNIST"].read(Path(sys.argv[1]), train=train)
    return (pixels / 255 - 0.1307) / 0.3081, labels


(pixels, labels), (test_pixels, test_labels) = load(train=True), load(train=False)
torch.manual_seed(int(sys.argv[2]))
model = nn.Sequential(*layers())
batches = list(zip(torch.split(pixels, 256), torch.split(labels, 256), strict=True))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.7, 0.9))
schedule = OneCycleLR(optimizer, 0.01, total_steps=len(batches), cycle_momentum=False)
start = perf_counter()
for inputs, targets in batches:
    optimizer.zero_grad()
    cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    schedule.step()
seconds = perf_counter() - start
with torch.no_grad():
    correct = int((model(test_pixels).argmax(dim=1) == test_labels).sum())
parameters = sum(parameter.numel() for parameter in model.parameters())
print(json.dumps({"seconds": seconds, "accuracy": correct / len(test_labels), "parameters": parameters}))
