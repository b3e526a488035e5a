"""How long a person waits for the first step and for help, beside the import that nobody can avoid.

Run `python tests/benchmarks/startup.py [REPEATS]`: about 20 seconds a repeat on two cores.

The whole command is timed, from its start to its end, with a training of one step: an upper bound of the time to it.
"""

import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from measure import TRAIN, run, save, table

COMMANDS: dict[str, list[str | Path]] = {
    "import torch": ["-c", "import torch"],
    "import lightning.pytorch, torchvision": ["-c", "import lightning.pytorch, torchvision"],
    "fit, one step": [
        *(TRAIN, "fit", "--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.limit_test_batches=0"),
    ],
    "predict, one picture": [TRAIN, "predict", "--images", "digit.png"],
    "test": [TRAIN, "test"],
    "export": [TRAIN, "export"],
    "--help": [TRAIN, "--help"],
    "fit --help": [TRAIN, "fit", "--help"],
}
DIGIT = "from PIL import Image, ImageDraw; i = Image.new('L', (200, 200), 230); "
DIGIT += "ImageDraw.Draw(i).line([(100, 30), (100, 170)], 20, 20); i.save('digit.png')"


def main(repeats: int) -> None:
    """Measure, print and save."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with TemporaryDirectory() as folder:
        run("-c", DIGIT, folder=Path(folder))
        for argv in COMMANDS.values():  # once, to have all files in memory
            run(*argv, folder=Path(folder))
        for _ in range(repeats):
            for name, argv in COMMANDS.items():
                seconds[name].append(run(*argv, folder=Path(folder)).seconds)
    middle = {name: median(values) for name, values in seconds.items()}
    imports = middle["import lightning.pytorch, torchvision"]
    ratios = {f"({name}) / import": middle[name] / imports for name in COMMANDS if not name.startswith("import")}
    ratios["(predict, one picture) / import torch"] = middle["predict, one picture"] / middle["import torch"]
    ratios["(fit, one step - 1.5 s) / import"] = (middle["fit, one step"] - 1.5) / imports
    print(table(seconds, "s"), *(f"{name:<44} {ratio:8.3f}" for name, ratio in ratios.items()), sep="\n")
    save("startup", {"seconds": seconds, "ratios": ratios})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
