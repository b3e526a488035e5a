"""The accuracy of each recipe in `configs/` over several seeds, and their comparison.

Run `python tests/benchmarks/recipes.py [RECIPE …]`: about 3 minutes a seed for most, 7 seconds for `fast`, 16 minutes
for `best`, on two cores. The runs stay in `runs/<recipe>` of the current folder, and the data in `data/`. Recipes that
are not named are not trained: their runs must be there.

Run `python tests/benchmarks/recipes.py --images FOLDER [RECIPE …]` for those of CIFAR-10, with its images as files in
`FOLDER/train/CLASS` and `FOLDER/test/CLASS`.
"""

import os
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from measure import TRAIN, save

SEEDS = {"blog": 3, "baseline": 3, "fast": 10, "best": 10}
CIFAR_SEEDS = {"cifar10_blog": 3, "cifar10": 3}
PROJECT = TRAIN.parent


def main() -> None:
    """Train, compare, and write the table, which `tables.py` puts into the documentation."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--images", type=os.path.abspath, metavar="FOLDER")
    parser.add_argument("--precision", help="of the Trainer")
    given = parser.parse_args()
    seeds, name = (CIFAR_SEEDS, "cifar10") if given.images else (SEEDS, "recipes")
    if unknown := set(given.recipes) - seeds.keys():
        parser.error(
            f"{', '.join(unknown)}: choose from {', '.join(seeds)}{'' if given.images else ', or give --images'}"
        )
    settings = {"trainer.precision": given.precision, "data.dataset": given.images}
    flags = [f"--{setting}={value}" for setting, value in settings.items() if value]
    for recipe in given.recipes or seeds:
        config = PROJECT / "configs" / f"{recipe}.yaml"
        start("fit", f"--config={config}", f"--seeds={seeds[recipe]}", *flags)
    start("compare", *(f"runs/{recipe}" for recipe in seeds), f"--output={PROJECT / 'docs' / name}.csv")
    save(name, {"seeds": seeds})


def start(*argv: str) -> None:
    """Run a command in the current folder."""
    subprocess.run([sys.executable, TRAIN, *argv], check=True)


if __name__ == "__main__":
    main()
