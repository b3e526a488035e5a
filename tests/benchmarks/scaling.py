"""Images a second in one process and in two, on the same two cores, side by side.

Run `python tests/benchmarks/scaling.py [REPEATS]`: about a minute a repeat on two cores.
"""

import os
from pathlib import Path

from measure import benchmark, fit, run

IMAGES = 20_000  # a run trains on
COMMON = ["--data.val_size=0", "--trainer.max_epochs=1", "--trainer.limit_test_batches=0", "--trainer.accelerator=cpu"]
KINDS = {
    "1 process, 1 thread": (1, ["--trainer.devices=1"]),
    "1 process, 2 threads": (2, ["--trainer.devices=1"]),
    "2 processes, 1 thread each": (1, ["--trainer.devices=2", "--trainer.strategy=ddp"]),
}


def measure(folder: Path, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Train with each number of processes and threads, and two sizes of batches."""
    rates: dict[str, list[float]] = {}
    run("-c", "from mnist_lit import MNISTDataModule; MNISTDataModule().prepare_data()", folder=folder)
    for _ in range(repeats):
        for batch in (100, 800):
            size = [f"--data.batch_size={batch}", f"--trainer.limit_train_batches={IMAGES // batch}"]
            for kind, (threads, flags) in KINDS.items():
                os.environ["OMP_NUM_THREADS"] = str(threads)
                _, results = fit(*COMMON, *size, *flags, folder=folder)
                rates.setdefault(f"batches of {batch}, {kind}", []).append(results["fit"]["images_per_second"])
    return {"images_per_second": rates}


if __name__ == "__main__":
    benchmark(measure, 5)
