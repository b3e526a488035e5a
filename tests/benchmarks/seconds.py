"""Seconds to 99 %: `configs/fast.yaml` and the fastest published recipe, alternating, over the same seeds.

Run `python tests/benchmarks/seconds.py [SEEDS]`: about 20 seconds a seed on two cores. A seed of `fast.yaml` is trained
twice, the second time with a validation of one batch only.
"""

import json
import sys
from pathlib import Path
from statistics import mean, median, stdev
from tempfile import TemporaryDirectory

from measure import HERE, TRAIN, run, save, table

FAST = TRAIN.parent / "configs" / "fast.yaml"
ONE_BATCH = ["--trainer.limit_val_batches=1", "--trainer.limit_test_batches=0"]
"""Of validation: without any, what Lightning prepares at its first log would count as training."""


def main(seeds: int) -> None:
    """Measure, print and save."""
    names = ("fast.yaml", "one-epoch recipe", "fast.yaml, with validation", "fast.yaml, the whole command")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    accuracy: dict[str, list[float]] = {name: [] for name in names[:2]}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(seeds):
            fast = run(TRAIN, "fit", f"--config={FAST}", f"--seed={seed}", folder=folder)
            results = json.loads((folder / f"runs/fast/version_{2 * seed}/results.json").read_text(encoding="utf-8"))
            seconds["fast.yaml, with validation"].append(results["fit"]["seconds"])
            seconds["fast.yaml, the whole command"].append(fast.seconds)
            accuracy["fast.yaml"].append(results["test"]["accuracy"])
            run(TRAIN, "fit", f"--config={FAST}", f"--seed={seed}", *ONE_BATCH, folder=folder)
            results = json.loads(
                (folder / f"runs/fast/version_{2 * seed + 1}/results.json").read_text(encoding="utf-8")
            )
            seconds["fast.yaml"].append(results["fit"]["seconds"])
            peer = json.loads(run(HERE / "one_epoch.py", "data", str(seed), folder=folder).out)
            seconds["one-epoch recipe"].append(peer["seconds"])
            accuracy["one-epoch recipe"].append(peer["accuracy"])
    print(table(seconds, "s"))
    for name, values in accuracy.items():
        print(f"{name:<44} {mean(values):.2%} ± {stdev(values) if seeds > 1 else 0:.2%} on the test set")
    ratio = median(seconds["fast.yaml"]) / median(seconds["one-epoch recipe"])
    print(f"fast.yaml / one-epoch recipe {ratio:.3f}")
    ratios = {"fast.yaml / one-epoch recipe": ratio}
    save("seconds", {"seconds": seconds, "test_accuracy": accuracy, "ratios": ratios, "peer": peer})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
