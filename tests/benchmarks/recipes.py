"""The test accuracy of each recipe in `configs/`, over several seeds.

Run `python tests/benchmarks/recipes.py [RECIPE …]`: about 3 minutes a seed for most, 7 seconds for `fast`, 13 minutes
for `best`, on two cores. A recipe that is not named keeps the figures that it has. The data are kept in `data/`.

Run `python tests/benchmarks/recipes.py --images FOLDER [RECIPE …]` for those of CIFAR-10, with its images as files in
`FOLDER/train/CLASS` and `FOLDER/test/CLASS`.
"""

import json
import os
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from measure import TRAIN, load, run, save

SEEDS = {"blog": 3, "baseline": 3, "fast": 10, "best": 3}
CIFAR_SEEDS = {"cifar10_blog": 3, "cifar10": 3}
CONFIGS = TRAIN.parent / "configs"


def recipe(name: str, seeds: int, folder: Path, images: str | None, precision: str) -> dict[str, Any]:
    """Train a recipe with its own seed, 777, and then with 1, 2, …; return what it came to."""
    found: dict[str, Any] = {"seconds": [], "command_seconds": [], "val_accuracy": [], "correct": []}
    for number in range(seeds):
        flags = [f"--data.data_dir={Path('data').absolute()}", f"--trainer.precision={precision}"]
        flags += [f"--seed={number}"] if number else []
        flags += [f"--data.dataset={images}"] if images else []
        command = run(TRAIN, "fit", f"--config={CONFIGS / name}.yaml", *flags, folder=folder)
        results = json.loads((folder / f"runs/{name}/version_{number}/results.json").read_text(encoding="utf-8"))
        print(name, results, flush=True)
        found["seconds"].append(results["fit"]["seconds"])
        found["command_seconds"].append(round(command.seconds, 1))
        found["val_accuracy"].append(results["fit"]["best_val_accuracy"])
        found["correct"].append(results["test"]["correct"])
    last = torch.load(folder / f"runs/{name}/version_0/checkpoints/last.ckpt", weights_only=True)
    names = [key for key in last["state_dict"] if key.startswith("network.") and key.endswith(("weight", "bias"))]
    epochs, data = last["epoch"] + 1, last["datamodule_hyper_parameters"]
    return found | {
        "precision": precision,
        "parameters": sum(last["state_dict"][name].numel() for name in names),
        "epochs": epochs,
        "images_seen": last["global_step"] * data["batch_size"],
        "images": (50_000 if images else 60_000) - data["val_size"],
        "selects": data["val_size"] > 0 and epochs > 1,
    }


def main() -> None:
    """Measure, print and save."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--images", type=os.path.abspath, metavar="FOLDER")
    parser.add_argument("--precision", default="32-true", help="of the Trainer")
    given = parser.parse_args()
    seeds, benchmark = (CIFAR_SEEDS, "cifar10") if given.images else (SEEDS, "recipes")
    if unknown := set(given.recipes) - seeds.keys():
        parser.error(
            f"{', '.join(unknown)}: choose from {', '.join(seeds)}{'' if given.images else ', or give --images'}"
        )
    for name in given.recipes or seeds:
        with TemporaryDirectory() as folder:
            found = recipe(name, seeds[name], Path(folder), given.images, given.precision)
        recipes = load(benchmark).get("recipes", {}) | {name: found}
        save(benchmark, {"recipes": {known: recipes[known] for known in seeds if known in recipes}})


if __name__ == "__main__":
    main()
