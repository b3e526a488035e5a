"""Measure again what the tables and pictures of the documents show, one benchmark after the other.

Run `python tests/benchmarks/figures.py [--images FOLDER] [BENCHMARK …]` with nothing else running: about two hours for
all on two cores, and two more with the images of CIFAR-10 as files in `FOLDER/train/CLASS` and `FOLDER/test/CLASS`.
The runs stay in `runs/` of the current folder: what was interrupted goes on there. The tables say with which commit and
processor they were measured.
"""

import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
import tables
from measure import HERE
from PIL import Image

BENCHMARKS = {
    "seconds": ["seconds.py"],
    "choices": ["choices.py"],
    "epoch": ["epoch.py"],
    "scaling": ["scaling.py"],
    "recipes": ["recipes.py"],
    "raw_pixels": ["raw_pixels.py", "runs/blog"],
    "mistakes": ["mistakes.py", "runs/best"],
    "lessons": ["lessons.py"],
}
OF_IMAGES = {"cifar10": ["recipes.py", "--images"], "cifar10_choices": ["cifar10_choices.py", "2"]}
PICTURES = ("curves.png", "mistakes.png")


def main() -> None:
    """Run the benchmarks, and write their tables and pictures."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK")
    parser.add_argument("--images", type=os.path.abspath, metavar="FOLDER")
    given = parser.parse_args()
    known = dict(BENCHMARKS)
    if given.images:
        known |= {name: [*command, given.images] for name, command in OF_IMAGES.items()}
    if unknown := {*given.benchmarks} - known.keys():
        hint = "" if given.images else f", or give --images for {', '.join(OF_IMAGES)}"
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(known)}{hint}")
    for name in given.benchmarks or known:
        script, *argv = known[name]
        print(f"{name}: {' '.join([script, *argv])}", flush=True)
        subprocess.run([sys.executable, HERE / script, *argv], check=True)
        if name == "recipes":
            for picture in PICTURES:
                shutil.copy(Path("runs/baseline/version_0", picture), tables.DOCS)
        tables.main()
    write_dark_pictures()


def write_dark_pictures() -> None:
    """Write `NAME_dark.png` beside each picture of the documents, for dark screens: its lightness is inverted."""
    for path in tables.DOCS.glob("*.png"):
        if path.stem.endswith("_dark") or path.stem == "page":  # which has a dark screenshot
            continue
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(np.int16)
        inverted = pixels + 255 - pixels.max(axis=2, keepdims=True) - pixels.min(axis=2, keepdims=True)  # in HSL
        Image.fromarray(inverted.astype(np.uint8)).save(path.with_stem(f"{path.stem}_dark"))


if __name__ == "__main__":
    main()
