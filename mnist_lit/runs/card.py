"""The model card of an exported file: what it is, how to use it, how good it is, and what it is not for."""

from collections.abc import Mapping
from pathlib import Path

import yaml
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from mnist_lit import __version__
from mnist_lit.calibration import CalibratedNetwork, count_parameters
from mnist_lit.datasets.catalog import public_name
from mnist_lit.datasets.dataset import ImageDataset
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.results import calibration_error, evaluation_results, format_confused, format_evaluation
from mnist_lit.system.errors import printable

__all__ = ["describe_model"]

HUB_IDS = {"MNIST": "ylecun/mnist", "FashionMNIST": "zalando-datasets/fashion_mnist", "CIFAR10": "uoft-cs/cifar10"}
"""Names of the data sets on Hugging Face's Hub."""
DIGITS = "Digits of other people and pens are read less well."
ANYTHING = "The network gives one of its classes for any image, even one of something else, often with high confidence."
LENGTH = ("seed", "trainer.max_epochs", "trainer.max_steps", "trainer.limit_train_batches", "trainer.precision")
"""Settings of a run that the card lists besides those of the model and the data, where they are set."""


def describe_model(
    path: Path,
    checkpoint: Checkpoint,
    dataset: ImageDataset,
    model: CalibratedNetwork,
    metadata: Mapping[str, str],
    probabilities: Tensor,
    labels: Tensor,
    *,
    library: str,
    use: str,
) -> str:
    """Return the model card of an exported file, in Markdown with Hugging Face's header.

    Args:
        path: path of the exported file.
        checkpoint: the checkpoint that is exported.
        dataset: the data set that the file was compared on.
        model: the network of the checkpoint.
        metadata: metadata of the file, with its input and output.
        probabilities: probabilities of the test images, (N, K).
        labels: labels of the test images, (N,).
        library: the library that opens the file, as Hugging Face's Hub names it.
        use: how to use such a file, with fields for its name, input, output, shape and number of classes.
    """
    classes = checkpoint.classes
    confusion = multiclass_confusion_matrix(probabilities, labels, len(classes))
    results = evaluation_results(confusion, 0.0)
    error, floor = calibration_error(probabilities, labels)
    calibration = model.uncalibrated or "the temperature was fitted on validation images"
    trained = checkpoint.settings["data"]["dataset"]
    parameters = count_parameters(model.network)
    names = printable(", ".join(classes))
    fields = {**metadata, "name": path.name, "shape": (3, *dataset.shape), "classes": len(classes)}
    sections = [
        _header(path, library, trained, dataset.name, results["accuracy"]),
        f"# {path.name}",
        f"A network with {parameters:,} parameters, for images like those of {public_name(trained)}: {names}.",
        "## How to use it",
        use.format(**fields),
        "## How it was trained",
        _training(checkpoint),
        "## Results",
        f"On the test images of {public_name(dataset.name)}: {format_evaluation('test', results)}.",
        *(f"{line[0].upper()}{line[1:]}." for line in format_confused(confusion, classes)),
        f"Expected calibration error on them: {error:.2%} ({calibration}); chance alone would give {floor:.2%}.",
        "## Limits",
        f"{DIGITS}\n{ANYTHING}" if dataset.kind == "digits" else ANYTHING,
        f"Exported by mnist-lit {__version__}.",
    ]
    return "\n\n".join(sections) + "\n"


def _header(path: Path, library: str, trained: str, tested: str, accuracy: float) -> str:
    """Return the header: the data sets that it was trained and tested on, as in `--data.dataset`, and its accuracy."""
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": public_name(tested), "type": HUB_IDS.get(tested, public_name(tested)), "split": "test"},
        "metrics": [{"type": "accuracy", "value": accuracy}],
    }
    header = {
        "library_name": library,
        "pipeline_tag": "image-classification",
        **({"datasets": [HUB_IDS[trained]]} if trained in HUB_IDS else {}),
        "model-index": [{"name": path.name, "results": [result]}],
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---"


def _training(checkpoint: Checkpoint) -> str:
    """Return the settings of the training."""
    settings = {group: dict(values) for group, values in checkpoint.settings.items()}
    settings["data"]["dataset"] = public_name(settings["data"]["dataset"])
    origin = checkpoint.path.name
    if run := checkpoint.run:
        config = run.settings()
        found = {name: config.get(name) for name in LENGTH if config.get(name) != -1}  # which sets no limit
        seed = found.pop("seed")
        settings["run"] = {name: value for name, value in found.items() if value is not None}
        folder = run.folder.resolve()
        origin = f"{folder.parent.name}/{folder.name}/{origin}, seed {seed}"
    return f"{printable(origin)}:\n\n```yaml\n{yaml.safe_dump(settings)}```"
