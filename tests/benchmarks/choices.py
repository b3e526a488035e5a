"""What each choice of `configs/fast.yaml` brings: validation accuracy and seconds without it, over the same seeds.

Run `python tests/benchmarks/choices.py [SEEDS]`: about 4 minutes for 5 seeds on two cores. The test set is not used.
"""

from collections.abc import Mapping, Sequence
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from measure import TRAIN, benchmark

from mnist_lit import cli
from mnist_lit.runs.folders import Run

__all__ = ["measure"]

COMMON = [f"--config={TRAIN.parent / 'configs' / 'fast.yaml'}"]
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


def measure(
    folder: Path, seeds: int, choices: Mapping[str, Sequence[str]] = CHOICES, common: Sequence[str] = COMMON
) -> dict[str, Any]:
    """Train with each choice and each seed. The flags `common` come before those of a choice."""
    accuracy: dict[str, list[float]] = {name: [] for name in choices}
    seconds: dict[str, list[float]] = {name: [] for name in choices}
    with chdir(folder):
        for seed in range(seeds):
            for number, (name, flags) in enumerate(choices.items()):
                argv = ["fit", *common, f"--seed={seed}", f"--experiment=choice{number}", *flags]
                with redirect_stdout(StringIO()):
                    if cli.main([*argv, "--trainer.limit_test_batches=0"]):
                        raise SystemExit(f"{argv} failed")
                results = Run(Path(f"runs/choice{number}/version_{seed}")).results()["fit"]
                accuracy[name].append(results["best_val_accuracy"])
                seconds[name].append(results["seconds"])
    return {"accuracy": accuracy, "seconds": seconds}


if __name__ == "__main__":
    benchmark(measure, 5)
