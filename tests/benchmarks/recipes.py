"""The accuracy of each recipe in `configs/` over several seeds, and their comparison.

Run `python tests/benchmarks/recipes.py [RECIPE …]`: about 3 minutes a seed for most, 7 seconds for `fast`, 14 minutes
for `best`, on two cores. The runs stay in `runs/<recipe>` of the current folder, and the data in `data/`. Recipes that
are not named keep their row of the table.

Run `python tests/benchmarks/recipes.py --images FOLDER [RECIPE …]` for those of CIFAR-10, with its images as files in
`FOLDER/train/CLASS` and `FOLDER/test/CLASS`: 3 minutes a seed for `cifar10_blog`, 23 minutes for `cifar10`.
"""

import csv
import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import TRAIN, load, save

from mnist_lit.runs.folders import Run

__all__ = ["compare"]

SEEDS = {"blog": 3, "baseline": 3, "fast": 10, "best": 3}
CIFAR_SEEDS = {"cifar10_blog": 3, "cifar10": 3}
PROJECT = TRAIN.parent


def main() -> None:
    """Train, compare, and write the table, which `tables.py` puts into the documentation."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--images", type=os.path.abspath, metavar="FOLDER")
    given = parser.parse_args()
    seeds, name = (CIFAR_SEEDS, "cifar10") if given.images else (SEEDS, "recipes")
    if unknown := set(given.recipes) - seeds.keys():
        parser.error(
            f"{', '.join(unknown)}: choose from {', '.join(seeds)}{'' if given.images else ', or give --images'}"
        )
    flags = [f"--data.dataset={given.images}"] if given.images else []
    chosen = given.recipes or [*seeds]
    for recipe in chosen:
        start("fit", f"--config={PROJECT / 'configs' / recipe}.yaml", f"--seeds={seeds[recipe]}", *flags)
    compare(chosen, seeds, name)


def compare(chosen: Sequence[str], seeds: Mapping[str, int], name: str) -> None:
    """Write the rows of trained recipes into a table; the pictures of the comparison if these are all.

    Args:
        chosen: the recipes.
        seeds: all recipes of the table, with their numbers of seeds.
        name: name of the table.
    """
    table = PROJECT / "docs" / f"{name}.csv"
    rows = {row["name"]: row for row in _read(table)}
    with TemporaryDirectory() as folder:
        found = Path(folder, f"{name}.csv")
        runs = [f"runs/{recipe}" for recipe in chosen]
        start("compare", *(runs if len(runs) > 1 else runs * 2), f"--output={found}")
        new = _read(found)
        if len(chosen) == len(seeds):
            for picture in found.parent.glob("*.png"):
                shutil.copy(picture, table.parent)
    rows |= {row["name"]: row for row in new}
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, new[0], restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in (f"runs/{recipe}" for recipe in seeds) if key in rows)
    made_by = load(name).get("runs", {})
    for recipe in chosen:
        made_by[recipe] = Run(Path(f"runs/{recipe}/version_0")).results()["made_by"]
    save(name, {"runs": made_by})


def start(*argv: str) -> None:
    """Run a command in the current folder."""
    subprocess.run([sys.executable, TRAIN, *argv], check=True)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
