"""An epoch of the blog's arithmetic: the blog's loop, `fit`, and the bare compute of its steps, side by side.

Run `python tests/benchmarks/epoch.py [REPEATS]`: about 80 seconds a repeat on two cores.
"""

import json
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from measure import HERE, TRAIN, run, save, table

FLAGS = ["--data.val_size=0", "--trainer.max_epochs=1", "--trainer.limit_test_batches=0"]
FLOP = 60_000 * (3 * 2 * (28 * 28 * 32 * 9 + 14 * 14 * 64 * 32 * 9 + 3136 * 10) - 2 * 28 * 28 * 32 * 9)
"""Of an epoch's products: forward, and twice as much backward but for the gradient of the pixels."""


def main(repeats: int) -> None:
    """Measure, print and save."""
    seconds: dict[str, list[float]] = {"the blog's loop": [], "fit": [], "bare steps": []}
    megabytes: dict[str, list[float]] = {"the blog's loop": [], "fit": [], "fit, 3 epochs": []}
    peaks = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        run("-c", "from mnist_lit import MNISTDataModule; MNISTDataModule().prepare_data()", folder=folder)
        extract = "from torchvision.datasets import MNIST; MNIST('blog', download=True)"
        (folder / "blog" / "MNIST").mkdir(parents=True)
        (folder / "blog" / "MNIST" / "raw").symlink_to(folder / "data" / "MNIST" / "raw")
        run("-c", extract, folder=folder)
        for number in range(repeats):
            blog = run(HERE / "blog_loop.py", "blog", folder=folder)
            seconds["the blog's loop"].append(float(blog.out))
            megabytes["the blog's loop"].append(blog.megabytes)
            fit = run(TRAIN, "fit", *FLAGS, folder=folder)
            results = json.loads((folder / f"runs/baseline/version_{number}/results.json").read_text(encoding="utf-8"))
            seconds["fit"].append(results["fit"]["seconds"])
            megabytes["fit"].append(fit.megabytes)
            bare, peak = run(HERE / "bare_steps.py", "data", folder=folder).out.split()
            seconds["bare steps"].append(float(bare))
            peaks.append(float(peak))
        longer = run(TRAIN, "fit", *FLAGS, "--trainer.max_epochs=3", folder=folder)
        megabytes["fit, 3 epochs"].append(longer.megabytes)
    middle = {name: median(values) for name, values in seconds.items()}
    ratios = {
        "the blog's loop / fit": middle["the blog's loop"] / middle["fit"],
        "fit / bare steps": middle["fit"] / middle["bare steps"],
        "fit / floor of the sgemm peak": middle["fit"] / (FLOP / median(peaks) / 1e9),
    }
    print(table(seconds, "s"), table(megabytes, "MB"), table({"sgemm peak": peaks}, "GFLOP/s"), sep="\n")
    print(*(f"{name:<44} {ratio:8.3f}" for name, ratio in ratios.items()), sep="\n")
    save("epoch", {"seconds": seconds, "megabytes": megabytes, "sgemm_gflops": peaks, "ratios": ratios})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
