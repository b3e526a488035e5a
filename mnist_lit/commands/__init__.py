"""The commands of the command line, and the help that is printed without importing torch."""

from mnist_lit.system.program import PROGRAM

__all__ = ["COMMANDS", "DESCRIPTIONS", "HELP", "describe_flags"]

COMMANDS = {
    "fit": "commands.fit",
    "validate": "commands.evaluate",
    "test": "commands.evaluate",
    "predict": "commands.predict",
    "export": "commands.export",
    "compare": "studies.compare",
    "search": "studies.search",
}
"""Module of each command."""
DESCRIPTIONS = {
    "fit": "train, keep the best checkpoint by validation, test it once",
    "validate": "the accuracy of a checkpoint on its validation images",
    "test": "the accuracy of a checkpoint on its test images",
    "predict": "classify your own pictures, or all test images",
    "export": "write a checkpoint as ONNX, torch.export program, safetensors or page to draw on",
    "compare": "experiments or runs side by side, and whether one is better",
    "search": "search hyperparameters, each trial an ordinary run",
}
_COMMANDS = "\n".join(f"  {name:<10} {text}" for name, text in DESCRIPTIONS.items())
HELP = f"""\
usage: {PROGRAM} COMMAND [flags]

commands:
{_COMMANDS}

examples:
  {PROGRAM} fit
  {PROGRAM} fit --config blog --seed 1
  {PROGRAM} test --ckpt_path runs/baseline/version_0/checkpoints/last.ckpt
  {PROGRAM} predict --images photo.jpg scans/

A run goes to runs/<experiment>/version_<n>/; the other commands take the best checkpoint of the newest run.
The flags of a command: {PROGRAM} COMMAND --help
Add --traceback to see where an error comes from. --version prints the version.
"""

OF_DATA = """\
  --data.data_dir DIR      folder of the data files (data)
  --trainer.accelerator A  cpu, gpu, mps … (auto)
"""
COMMON = f"""\
  --data.batch_size N      images of a batch (100)
{OF_DATA}"""
CHECKPOINT = """\
  --ckpt_path WHICH        best, last or a checkpoint file (best); model and data settings come from it
  --experiment NAME        look for the newest run in runs/NAME only
"""
FLAG_HELP = {
    "fit": f"""\
  --config FILE            a config file, or baseline, fast, best, …; repeatable, later ones win, flags win over all
  --experiment NAME        the run goes to runs/NAME/version_<n> (baseline)
  --ckpt_path WHICH        resume a run: last of the newest unfinished one, best, or a checkpoint file in its run
  --init_from FILE         start a new run from a checkpoint's weights, on any data and with any flags (fine-tuning)
  --seed N                 seed of the initial weights and the training order (777)
  --seeds N                N runs, with seeds seed, seed + 1, …, and their mean and standard deviation
  --model.channels LIST    filters of each convolution block ([32,64])
  --model.learning_rate X  learning rate; with a schedule, its peak (0.001)
  --data.dataset WHICH     MNIST, FashionMNIST, KMNIST, CIFAR10 or a folder of images, DIR/CLASS/*.jpg (MNIST)
  --data.val_size N        images held out for validation (5000, but at most a tenth of the training images)
  --trainer.max_epochs N   epochs to train (15)
{COMMON}""",
    "search": f"""\
  --config FILE            the search space and what all trials have in common (search)
  --trials N               trials of the study in all (20); a larger number resumes a study
  --experiment NAME        the study is runs/NAME/study.journal, its trials are runs/NAME/version_<n> (baseline)
  --trainer.max_epochs N   epochs of a trial (15)
{COMMON}""",
    "predict": f"""\
  --images PATH [PATH …]   your own pictures, files or folders (else the test set)
  --several                read every digit of each picture, in reading order
  --save_seen DIR          save the preprocessed pictures, as the network classifies them
  --output FILE            the CSV file (predictions.csv in the run folder)
{CHECKPOINT}{COMMON}""",
    "export": f"""\
  --output FILE            FILE.onnx, .pt2, .safetensors or a page, .html (model.onnx in the run folder)
{CHECKPOINT}{COMMON}""",
    "validate": CHECKPOINT + COMMON,
    "test": CHECKPOINT + COMMON,
    "compare": f"""\
  A B …                    folders of experiments (runs/NAME, with a run for each of several seeds) or of single runs,
                           or files runs/NAME/seeds_<n>.json of fit --seeds
  --output FILE.csv        write the table; FILE.png shows the accuracies, FILE_images.png what is read differently
{OF_DATA}""",
}


def describe_flags(command: str) -> str:
    """Return the help of a command: the flags that people change, with their defaults."""
    if command == "compare":
        return f"usage: {PROGRAM} compare A B [C …] [flags]\n\n{FLAG_HELP[command]}"
    return f"""\
usage: {PROGRAM} {command} [flags]

The flags that people change:
{FLAG_HELP[command]}
All flags: {PROGRAM} {command} --help all
"""
