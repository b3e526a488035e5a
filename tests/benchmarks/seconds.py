"""Seconds to 99 %: `configs/fast.yaml` and the fastest published recipe, alternating, over the same seeds.

Run `python tests/benchmarks/seconds.py [SEEDS]`: about 30 seconds a seed on two cores. A seed of `fast.yaml` is trained
twice, the second time with a validation of one batch only.

That recipe (tuomaso/train_mnist_fast) is a bare loop for a CPU, in a process of its own: `seconds.py one_epoch DATA_DIR
SEED`. Two convolutions with 24 and 32 filters, 256 hidden units, Adam (0.7, 0.9) on one cycle up to 0.01, one epoch of
batches of 256 in the files' order, pixels normalised beforehand.
"""

import json
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from measure import HERE, TRAIN, benchmark, fit, run

FAST = TRAIN.parent / "configs" / "fast.yaml"
ONE_BATCH = ["--trainer.limit_val_batches=1", "--trainer.limit_test_batches=0"]
"""Batches of validation: without any, what Lightning prepares at its first log would count as training."""


def measure(folder: Path, seeds: int) -> dict[str, Any]:
    """Train both recipes with each seed."""
    names = ("fast.yaml", "one-epoch recipe", "fast.yaml, with validation", "fast.yaml, the whole command")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    accuracy: dict[str, list[float]] = {name: [] for name in names[:2]}
    for seed in range(seeds):
        fast, results = fit(f"--config={FAST}", f"--seed={seed}", folder=folder)
        seconds["fast.yaml, with validation"].append(results["fit"]["seconds"])
        seconds["fast.yaml, the whole command"].append(fast.seconds)
        accuracy["fast.yaml"].append(results["test"]["accuracy"])
        _, results = fit(f"--config={FAST}", f"--seed={seed}", *ONE_BATCH, folder=folder)
        seconds["fast.yaml"].append(results["fit"]["seconds"])
        peer = json.loads(run(HERE / "seconds.py", "one_epoch", "data", str(seed), folder=folder).out)
        seconds["one-epoch recipe"].append(peer["seconds"])
        accuracy["one-epoch recipe"].append(peer["accuracy"])
    ratios = {"fast.yaml / one-epoch recipe": median(seconds["fast.yaml"]) / median(seconds["one-epoch recipe"])}
    return {"seconds": seconds, "test_accuracy": accuracy, "ratios": ratios, "peer": peer}


def one_epoch(data_dir: str, seed: str) -> None:
    """Print, as JSON, the seconds from the first step to the last, the test accuracy and the number of parameters."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy
    from torch.optim.lr_scheduler import OneCycleLR

    from mnist_lit.datasets.catalog import MNIST

    (pixels, labels), (test_pixels, test_labels) = (MNIST.read(data_dir, train=train) for train in (True, False))
    pixels, test_pixels = ((images / 255 - 0.1307) / 0.3081 for images in (pixels, test_pixels))
    torch.manual_seed(int(seed))
    blocks = [(nn.Conv2d(1, 24, 5), nn.MaxPool2d(2), nn.ReLU()), (nn.Conv2d(24, 32, 3), nn.MaxPool2d(2), nn.ReLU())]
    linear = (nn.Flatten(), nn.Linear(32 * 5 * 5, 256), nn.ReLU(), nn.Linear(256, 10))
    model = nn.Sequential(*blocks[0], *blocks[1], *linear)
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


if __name__ == "__main__":
    if sys.argv[1:2] == ["one_epoch"]:
        one_epoch(*sys.argv[2:])
    else:
        benchmark(measure, 10)
