"""Images a second in one process and in two, on the same two cores, side by side.

Run `python tests/benchmarks/scaling.py [REPEATS]`: about a minute a repeat on two cores.
"""

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import TRAIN, run, save, table

IMAGES = 20_000  # a run trains on
COMMON = ["--data.val_size=0", "--trainer.max_epochs=1", "--trainer.limit_test_batches=0", "--trainer.accelerator=cpu"]
KINDS = {
    "1 process, 1 thread": (1, ["--trainer.devices=1"]),
    "1 process, 2 threads": (2, ["--trainer.devices=1"]),
    "2 processes, 1 thread each": (1, ["--trainer.devices=2", "--trainer.strategy=ddp"]),
}


def main(repeats: int) -> None:
    """Measure, print and save."""
    rates: dict[str, list[float]] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        run("-c", "from mnist_lit import MNISTDataModule; MNISTDataModule().prepare_data()", folder=folder)
        number = 0
        for _ in range(repeats):
            for batch in (100, 800):
                size = [f"--data.batch_size={batch}", f"--trainer.limit_train_batches={IMAGES // batch}"]
                for kind, (threads, flags) in KINDS.items():
                    os.environ["OMP_NUM_THREADS"] = str(threads)
                    run(TRAIN, "fit", *COMMON, *size, *flags, folder=folder)
                    results = json.loads(
                        (folder / f"runs/baseline/version_{number}/results.json").read_text(encoding="utf-8")
                    )
                    rates.setdefault(f"batches of {batch}, {kind}", []).append(results["fit"]["images_per_second"])
                    number += 1
    print(table(rates, "/s"))
    save("scaling", {"images_per_second": rates})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
