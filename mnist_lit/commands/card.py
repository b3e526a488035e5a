"""The model card of an exported file: what it is, how to use it, how good it is, and what it is not for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from mnist_lit import __version__
from mnist_lit.commands.ensemble import explain_calibration
from mnist_lit.commands.restore import Restored
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.runs.results import evaluation_results, format_confused, format_evaluation
from mnist_lit.system.errors import printable

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
DIGITS = """\
The digits must be white on black and centred as MNIST's are. `predict --images` prepares photographs, and so does the
page to draw on (`export --output FILE.html`). Digits of other people and pens are read less well."""
ANYTHING = "It gives one of its classes for any image, also for one of something else, and often with confidence."


def describe_model(
    path: Path, restored: Restored, metadata: Mapping[str, str], probabilities: Tensor, labels: Tensor
) -> str:
    """Return the model card of an exported file, in Markdown with Hugging Face's header.

    Args:
        path: of the file.
        restored: what is exported.
        metadata: of the file: its input, output and origin.
        probabilities: of the test images, (N, K).
        labels: of the test images, (N,).
    """
    dataset, classes = restored.data.dataset, restored.checkpoint.classes
    confusion = multiclass_confusion_matrix(probabilities, labels, len(classes))
    results = evaluation_results(confusion, 0.0)
    error = float(multiclass_calibration_error(probabilities, labels, len(classes), norm="l1"))
    name = printable(Path(dataset.name).name)
    header = {
        "license": "mit",
        "library_name": LIBRARIES[path.suffix],
        "pipeline_tag": "image-classification",
        "datasets": [name.lower()],
        "model-index": [
            {
                "name": path.name,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": name, "type": name.lower(), "split": "test"},
                        "metrics": [{"type": "accuracy", "value": results["accuracy"]}],
                    }
                ],
            }
        ],
    }
    parameters = sum(parameter.numel() for parameter in restored.classifier.network.parameters())
    number = dataset.train_size - restored.data.val_size
    origin = f" ({metadata['run']}, {metadata['checkpoint']})" if metadata["run"] else ""
    calibration = explain_calibration(restored.classifier) or "the temperature was fitted on validation images"
    lines = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {path.name}",
        f"Classifies images of {name}: {_list(classes)}. {_describe_network(restored, parameters)}",
        f"- input: {metadata['input']}\n- output: {metadata['output']}",
        "## How to use it",
        _use(path, dataset.shape, len(classes)),
        "## How it was trained",
        f"On {number:,} images of {name}, by mnist-lit {__version__}, with these settings{origin}:",
        f"```yaml\n{yaml.safe_dump(json.loads(metadata['settings']))}```",
        "## Results",
        f"{format_evaluation('Test', results)}.",
        *(f"{line[0].upper()}{line[1:]}." for line in format_confused(confusion, classes)),
        f"Expected calibration error on the test images: {error:.2%} ({calibration}).",
        "## Limits",
        f"{DIGITS}\n{ANYTHING}" if dataset.name == MNIST.name else ANYTHING,
    ]
    return "\n\n".join(lines) + "\n"


def _describe_network(restored: Restored, parameters: int) -> str:
    if restored.members:
        return f"An ensemble of {len(restored.members)} networks with {parameters:,} parameters in all."
    return f"A network of {parameters:,} parameters."


def _list(classes: Sequence[str]) -> str:
    return printable(", ".join(classes))


def _use(path: Path, shape: Sequence[int], classes: int) -> str:
    if path.suffix not in USE:
        return "Open it in a browser."
    code: dict[str, Any] = {"name": path.name, "shape": (3, *shape), "classes": classes}
    return f"```python\n{USE[path.suffix].format(**code)}```"
