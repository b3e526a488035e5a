"""The model card of an exported file: what it is, how to use it, how good it is, and what it is not for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from mnist_lit import __version__
from mnist_lit.commands.flags import flatten
from mnist_lit.commands.restore import Restored
from mnist_lit.datasets.catalog import DATASETS, MNIST
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.results import evaluation_results, format_confused, format_evaluation
from mnist_lit.system.errors import printable
from mnist_lit.system.yaml_loader import load
from mnist_lit.training.inspection import count_parameters

__all__ = ["describe_model"]

USE = {
    ".onnx": """\
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("{name}")
pixels = np.zeros({shape}, dtype=np.uint8)
probabilities = session.run(["probabilities"], {{"pixels": pixels}})[0]  # (3, {classes})
""",
    ".pt2": """\
import torch

program = torch.export.load("{name}").module()
pixels = torch.zeros({shape}, dtype=torch.uint8)
probabilities = program(pixels)  # (3, {classes})
""",
    ".safetensors": """\
import json, torch
from mnist_lit import DigitClassifier
from safetensors import safe_open

with safe_open("{name}", "pt") as file:
    settings = json.loads(file.metadata()["settings"])["model"]
    weights = {{name: file.get_tensor(name) for name in file.keys()}}
temperature = weights.pop("temperature")
network = DigitClassifier(**settings).network.eval()
network.load_state_dict(weights)
pixels = torch.zeros({shape}, dtype=torch.uint8)
probabilities = (network(pixels) / temperature).softmax(dim=1)  # (3, {classes})
""",
}
"""How to use each kind of file, in Python."""
LIBRARIES = {".onnx": "onnx", ".pt2": "pytorch", ".safetensors": "pytorch", ".html": "mnist-lit"}
HUB_IDS = {"MNIST": "ylecun/mnist", "FashionMNIST": "zalando-datasets/fashion_mnist", "CIFAR10": "uoft-cs/cifar10"}
"""Names of the data sets on Hugging Face's Hub."""
DIGITS = """\
The digits must be white on black and centred as MNIST's are. `predict --images` prepares photographs, and so does the
page to draw on (`export --output FILE.html`). Digits of other people and pens are read less well."""
ANYTHING = "It gives one of its classes for any image, also for one of something else, and often with confidence."
LENGTH = ("seed", "trainer.max_epochs", "trainer.max_steps", "trainer.limit_train_batches", "trainer.precision")
"""Settings of a run that the card lists besides those of the model and the data, where they are set."""


def describe_model(
    path: Path, restored: Restored, metadata: Mapping[str, str], probabilities: Tensor, labels: Tensor
) -> str:
    """Return the model card of an exported file, in Markdown with Hugging Face's header.

    Args:
        path: path of the exported file.
        restored: what is exported.
        metadata: metadata of the file, with its input and output.
        probabilities: probabilities of the test images, (N, K).
        labels: labels of the test images, (N,).
    """
    dataset, classes = restored.data.dataset, restored.checkpoint.classes
    confusion = multiclass_confusion_matrix(probabilities, labels, len(classes))
    results = evaluation_results(confusion, 0.0)
    error = float(multiclass_calibration_error(probabilities, labels, len(classes), norm="l1"))
    calibration = restored.model.uncalibrated or "the temperature was fitted on validation images"
    trained, page = _name(restored.checkpoint.settings["data"]["dataset"]), path.suffix == ".html"
    sections = [
        _header(path, trained, _name(dataset.name), results["accuracy"]),
        f"# {path.name}",
        _describe_network(restored, trained),
        *([] if page else [f"- input: {metadata['input']}\n- output: {metadata['output']}"]),
        "## How to use it",
        "Open it in a browser." if page else _use(path, dataset.shape, len(classes)),
        "## How it was trained",
        _training(restored.checkpoint),
        "## Results",
        f"On the test images of {_name(dataset.name)}: {format_evaluation('test', results)}.",
        *(f"{line[0].upper()}{line[1:]}." for line in format_confused(confusion, classes)),
        f"Expected calibration error on them: {error:.2%} ({calibration}).",
        "## Limits",
        f"{DIGITS}\n{ANYTHING}" if dataset.name == MNIST.name and not page else ANYTHING,
        f"Exported by mnist-lit {__version__}.",
    ]
    return "\n\n".join(sections) + "\n"


def _header(path: Path, trained: str, tested: str, accuracy: float) -> str:
    """Return the header: names of the data sets that it was trained and tested on, and its accuracy."""
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": tested, "type": HUB_IDS.get(tested, tested), "split": "test"},
        "metrics": [{"type": "accuracy", "value": accuracy}],
    }
    header = {
        "library_name": LIBRARIES[path.suffix],
        "pipeline_tag": "image-classification",
        **({"datasets": [HUB_IDS[trained]]} if trained in HUB_IDS else {}),
        "model-index": [{"name": path.name, "results": [result]}],
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---"


def _describe_network(restored: Restored, trained: str) -> str:
    parameters = count_parameters(restored.classifier.network)
    classes = ", ".join(restored.checkpoint.classes)
    return f"A network with {parameters:,} parameters, for images like those of {trained}: {printable(classes)}."


def _training(checkpoint: Checkpoint) -> str:
    """Return the settings of the training."""
    settings = {group: dict(values) for group, values in checkpoint.settings.items()}
    settings["data"]["dataset"] = _name(settings["data"]["dataset"])
    origin = checkpoint.path.name
    if run := checkpoint.run:
        config = flatten(load(run.config.read_text(encoding="utf-8")))
        found = {name: config.get(name) for name in LENGTH}
        seed = found.pop("seed")
        settings["run"] = {name: value for name, value in found.items() if value is not None}
        folder = run.folder.resolve()
        origin = f"{folder.parent.name}/{folder.name}/{origin}, seed {seed}"
    return f"{printable(origin)}:\n\n```yaml\n{yaml.safe_dump(settings)}```"


def _name(dataset: str) -> str:
    """Return the name of a data set, of a folder without its path, which belongs to a machine."""
    return dataset if dataset in DATASETS else printable(Path(dataset).resolve().name)


def _use(path: Path, shape: Sequence[int], classes: int) -> str:
    code: dict[str, Any] = {"name": path.name, "shape": (3, *shape), "classes": classes}
    return f"```python\n{USE[path.suffix].format(**code)}```"
