"""What each choice of `configs/fast.yaml` brings: validation accuracy and seconds without it, over the same seeds.

Run `python tests/benchmarks/choices.py [SEEDS]`: about 8 minutes for 5 seeds on two cores. The test set is not used.
"""

import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from os import chdir
from pathlib import Path
from statistics import mean, median, stdev
from tempfile import TemporaryDirectory

from measure import TRAIN, save

from mnist_lit import cli

FAST = TRAIN.parent / "configs" / "fast.yaml"
TWO_BLOCKS = ["--model.kernel_sizes=[5,3]", "--model.padding=[0,0]", "--model.pooling=[3,2]"]
CHOICES = {
    "fast.yaml": [],
    "first filters 3x3": ["--model.kernel_sizes=[3,3,3]"],
    "first block pooled by 2": ["--model.pooling=[2,2,1]"],
    "all convolutions padded, all blocks pooled": ["--model.padding=[2,1,1]", "--model.pooling=[2,2,2]"],
    "no batch normalisation": ["--model.batch_norm=false", "--model.learning_rate=0.003"],
    "no label smoothing": ["--model.label_smoothing=0"],
    "Adam's own betas": ["--model.betas=[0.9,0.999]"],
    "constant rate": ["--model.schedule=constant", "--model.learning_rate=0.002"],
    "batches of 128, rate 0.022": ["--data.batch_size=128", "--model.learning_rate=0.022"],
    "channels 16-48-96": ["--model.channels=[16,48,96]"],
    "channels 32-64": ["--model.channels=[32,64]", *TWO_BLOCKS],
    "three quarters of the steps": ["--trainer.limit_train_batches=0.3375"],
    "a whole epoch": ["--trainer.limit_train_batches=1.0"],
}


def main(seeds: int) -> None:
    """Train, print and save."""
    found: dict[str, dict[str, list[float]]] = {name: {"accuracy": [], "seconds": []} for name in CHOICES}
    with TemporaryDirectory() as folder:
        chdir(folder)
        for seed in range(seeds):
            for number, (name, flags) in enumerate(CHOICES.items()):
                argv = ["fit", f"--config={FAST}", f"--seed={seed}", f"--experiment=choice{number}", *flags]
                with redirect_stdout(StringIO()):
                    if cli.main([*argv, "--trainer.limit_test_batches=0"]):
                        raise SystemExit(f"{argv} failed")
                results = json.loads(
                    Path(f"runs/choice{number}/version_{seed}/results.json").read_text(encoding="utf-8")
                )["fit"]
                found[name]["accuracy"].append(results["best_val_accuracy"])
                found[name]["seconds"].append(results["seconds"])
        chdir(TRAIN.parent)
    for name, values in found.items():
        spread = stdev(values["accuracy"]) if seeds > 1 else 0
        print(f"{name:<26} {mean(values['accuracy']):.2%} ± {spread:.2%}   {median(values['seconds']):5.1f} s")
    save("choices", {"seeds": seeds, "choices": found})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
