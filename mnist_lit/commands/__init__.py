"""The commands of the command line, and the help that is printed without importing torch.

`mnist_lit/reader` and `mnist_lit/studies` are rooms that can be taken away: their commands, and the lines of the help
that end in their marks, go with them.
"""

import re

from mnist_lit.system.errors import UsageError
from mnist_lit.system.program import PACKAGE, PROGRAM

__all__ = ["COMMANDS", "HELP", "describe_flags", "has_room", "require_room"]


def has_room(name: str) -> bool:
    """Return whether the room `reader` or `studies` is there."""
    return (PACKAGE / name / "__init__.py").is_file()


def require_room(name: str, feature: str) -> None:
    """Raise UsageError if the room that a feature needs was taken away."""
    if not has_room(name):
        raise UsageError(f"{feature} requires mnist_lit/{name}, which is not there")


def _without_absent(text: str) -> str:
    """Return a text without the marks of rooms, and without the lines of those that are not there."""
    marked = ((re.sub(" *<!-- .* -->", "", line), re.search("<!-- (.*) -->", line)) for line in text.splitlines())
    return "".join(f"{line}\n" for line, mark in marked if not mark or has_room(mark[1]))


_ALL_COMMANDS = {
    "fit": ("commands.fit", "train, keep the best checkpoint by validation, test it once"),
    "validate": ("commands.evaluate", "the accuracy of a checkpoint on its validation images"),
    "test": ("commands.evaluate", "the accuracy of a checkpoint on its test images"),
    "predict": ("commands.predict", "classify your own pictures, or all test images"),
    "export": ("commands.export", "write a checkpoint in another format, such as ONNX"),
    "compare": ("studies.compare", "experiments or runs side by side, and whether one is better"),
    "search": ("studies.search", "search hyperparameters, each trial an ordinary run"),
}
COMMANDS = {name: module for name, (module, _) in _ALL_COMMANDS.items() if has_room(module.partition(".")[0])}
"""The module of each command."""
_LIST = "\n".join(f"  {name:<10} {_ALL_COMMANDS[name][1]}" for name in COMMANDS)
HELP = f"""\
usage: {PROGRAM} COMMAND [flags]

commands:
{_LIST}

examples:
  {PROGRAM} fit
  {PROGRAM} fit --config blog --seed 1
  {PROGRAM} test --ckpt_path runs/baseline/version_0/checkpoints/last.ckpt
  {PROGRAM} predict --images photo.jpg scans/

A run goes to runs/<experiment>/version_<n>/; the other commands take the best checkpoint of the newest run.
The flags of a command: {PROGRAM} COMMAND --help
Add --traceback to see where an error comes from. --version prints the version.
"""

DATA = """\
  --data.data_dir DIR      folder with the data files (data)
  --trainer.accelerator A  cpu, gpu, mps … (auto)
"""
COMMON = f"""\
  --data.batch_size N      images in a batch (100)
{DATA}"""
CHECKPOINT = """\
  --ckpt_path WHICH        best, last or a checkpoint file (best); model and data settings come from it
  --experiment NAME        take the newest run in runs/NAME
"""
FLAG_HELP = {
    "fit": f"""\
  --config FILE            a config file, or baseline, fast, best, …; repeatable, later ones win, flags win over all
  --experiment NAME        the run goes to runs/NAME/version_<n> (baseline)
  --ckpt_path WHICH        the run to resume: last is the newest unfinished one; or best, or a file in a run folder
  --init_from FILE         start a new run from a checkpoint's weights, on any data and with any flags (fine-tuning)
  --seed N                 seed of the initial weights and the training order (777)
  --seeds N                N runs, with seeds seed, seed + 1, …, and their mean and standard deviation  <!-- studies -->
  --model.channels LIST    filters of each convolution block ([32,64])
  --model.learning_rate X  learning rate; with a schedule, its peak (0.001)
  --data.dataset WHICH     MNIST, FashionMNIST, KMNIST, CIFAR10 or a folder of images, DIR/CLASS/*.jpg (MNIST)
  --data.val_size N        images held out for validation (5000, but at most a tenth of the training images)
  --trainer.max_epochs N   epochs to train (15)
{COMMON}""",
    "search": f"""\
  --config FILE            the search space and what all trials have in common, such as configs/search.yaml
  --trials N               trials of the study in all (20); a larger number resumes a study
  --experiment NAME        the study is runs/NAME/study.journal, its trials are runs/NAME/version_<n> (baseline)
  --trainer.max_epochs N   epochs of a trial (15)
{COMMON}""",
    "predict": f"""\
  --images PATH [PATH …]   your own pictures, files or folders (else the test set)
                           without a run, a network of the package reads them as digits  <!-- reader -->
  --several                read every digit of each picture, in reading order  <!-- reader -->
  --save_seen DIR          save the preprocessed pictures, as the network classifies them
  --output FILE            the CSV file (predictions.csv in the run folder)
{CHECKPOINT}{COMMON}""",
    "export": f"""\
  --output FILE            FILE.onnx, .pt2 or .safetensors (model.onnx in the run folder)
                           or FILE.html, a page to draw a digit on  <!-- reader -->
{CHECKPOINT}{COMMON}""",
    "validate": CHECKPOINT + COMMON,
    "test": CHECKPOINT + COMMON,
    "compare": f"""\
  A B …                    folders of experiments (runs/NAME, with a run for each of several seeds) or of single runs,
                           or files runs/NAME/seeds_<n>.json of fit --seeds
  --relevant X             the smallest difference that matters, in percentage points (0.1)
  --output FILE.csv        write the table; FILE.png has the accuracies, FILE_images.png images classified differently
{DATA}""",
}


def describe_flags(command: str) -> str:
    """Return the help of a command: the flags that people change, with their defaults."""
    flags = _without_absent(FLAG_HELP[command])
    if command == "compare":
        return f"usage: {PROGRAM} compare A B [C …] [flags]\n\n{flags}"
    return f"""\
usage: {PROGRAM} {command} [flags]

The flags that people change:
{flags}
All flags: {PROGRAM} {command} --help all
"""
