"""Export a checkpoint to ONNX, torch.export, safetensors or a page: pixels in, calibrated probabilities out."""

import json
import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from tqdm import tqdm

from mnist_lit import __version__
from mnist_lit.calibration import CalibratedNetwork
from mnist_lit.commands.card import describe_model
from mnist_lit.commands.novelty import MAX_NOVELTY, NoveltyNetwork
from mnist_lit.commands.predict import MIN_CONFIDENCE, find_preprocessing
from mnist_lit.commands.restore import Restored, restore
from mnist_lit.datasets.catalog import has_photographs
from mnist_lit.page.html import node_classifier, write_page
from mnist_lit.page.operations import describe_network
from mnist_lit.photos.preprocess import as_mnist
from mnist_lit.system.errors import UsageError
from mnist_lit.system.files import write_atomically
from mnist_lit.system.program import install_hint
from mnist_lit.training.inspection import count_parameters

__all__ = ["describe_page", "export"]

MAX_BATCH = 10_000  # images
BATCH_SIZE = 1_000  # of the comparison
TOLERANCE = 1e-4  # of a probability
DYNAMIC_SHAPES = ({0: Dim("N", min=1, max=MAX_BATCH)},)  # of the pixels

Classify = Callable[[Tensor], Tensor]


def export(argv: Sequence[str]) -> None:
    """Write a checkpoint in another format, which must classify all test images as the checkpoint does, and its card.

    A page is compared only if Node.js is installed.

    Raises:
        UsageError: if the file's name ends otherwise, a package is not installed, or a page cannot prepare such images.
        ValueError: if the exported model classifies an image otherwise.
    """
    restored = restore("export", argv)
    target = restored.output("model.onnx")
    if target.suffix not in FORMATS:
        raise UsageError(f"--output: {target} must end in {', '.join([*FORMATS][:-1])} or {[*FORMATS][-1]}")
    data, model = restored.data, restored.model
    example = torch.zeros(2, *data.dataset.shape, dtype=torch.uint8)
    with catch_warnings(action="ignore"):  # the exporters', about their own code
        content, classify = FORMATS[target.suffix](model, example, restored)
    data.prepare_data()
    data.setup("predict")
    pixels, labels = data.test_set.pixels, data.test_set.labels
    probabilities = model.classify(pixels, BATCH_SIZE)  # (N, K)
    with torch.inference_mode():
        compared = _compare(classify, pixels, probabilities)
    card = describe_model(target, restored, _metadata(restored), probabilities, labels)
    write_atomically(target, content)
    write_atomically(described := target.with_name(f"{target.name}.md"), card.encode())
    print(f"{compared}: {target}, {len(content) / 1e3:,.0f} kB, and its model card {described.name}")


def _compare(classify: Classify | None, pixels: Tensor, expected: Tensor) -> str:
    """Return how the exported file classifies the test images, compared with the checkpoint.

    Args:
        classify: the exported file's probabilities of some images, None if it cannot be run here.
        pixels: test images, uint8 (N, C, H, W).
        expected: the checkpoint's probabilities, (N, K).

    Raises:
        ValueError: if a probability differs too much, or an image gets another class.
    """
    if not classify:
        return "without Node.js, not compared with the checkpoint"
    largest = 0.0
    batches = [
        (pixels[:1], expected[:1]),
        *zip(torch.split(pixels, BATCH_SIZE), torch.split(expected, BATCH_SIZE), strict=True),
    ]
    for batch, probabilities in tqdm(batches, "comparing", leave=False, disable=None):
        found = classify(batch)
        largest = max(largest, float((found - probabilities).abs().max()))
        if not largest < TOLERANCE or (found.argmax(dim=1) != probabilities.argmax(dim=1)).any():
            raise ValueError(f"the exported model classifies test images otherwise (by {largest:.1e}): not written")
    return f"{len(pixels):,} test images classified alike, probabilities differ by {largest:.1e} at most"


def _metadata(restored: Restored) -> dict[str, str]:
    """Return the input, output and origin of the exported model."""
    dataset, checkpoint = restored.data.dataset, restored.checkpoint
    settings = {"model": dict(restored.classifier.hparams), "data": dict(restored.data.hparams)}
    shape = ", ".join(map(str, dataset.shape))
    tone = "" if has_photographs(dataset.name) else ", white on black"
    return {
        "input": f"pixels: uint8 (N, {shape}), 0-255{tone}; N from 1 to {MAX_BATCH}",
        "output": f"probabilities: float32 (N, {len(dataset.classes)})",
        "classes": json.dumps(dataset.classes),
        "dataset": dataset.name,
        "mnist_lit": __version__,
        "run": checkpoint.run.folder.as_posix() if checkpoint.run else "",
        "checkpoint": checkpoint.path.name,
        "settings": json.dumps(settings),
    }


def _trace(model: nn.Module, example: Tensor) -> ExportedProgram:
    return torch.export.export(model, (example,), dynamic_shapes=DYNAMIC_SHAPES)


def _to_onnx(model: CalibratedNetwork, example: Tensor, restored: Restored) -> tuple[bytes, Classify]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it
        from onnx.helper import set_model_props
    except ImportError as error:
        raise UsageError(f"ONNX needs {error.name}: {install_hint('export')}, or give --output FILE.pt2") from error
    names: dict[str, Any] = {"input_names": ["pixels"], "output_names": ["probabilities"]}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # 2.9 warns of operators of torchvision's
    exported = _trace(model, example)  # torch.onnx in 2.9 does otherwise
    program = torch.onnx.export(exported, dynamo=True, verbose=False, **names)
    assert program is not None  # noqa: S101  # it is, with dynamo
    proto = program.model_proto
    set_model_props(proto, _metadata(restored))
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def classify(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["probabilities"], {"pixels": pixels.numpy()})[0])

    return content, classify


def _to_pt2(model: CalibratedNetwork, example: Tensor, restored: Restored) -> tuple[bytes, Classify]:
    program = _trace(model, example)
    file = BytesIO()
    torch.export.save(program, file, extra_files={"metadata.json": json.dumps(_metadata(restored))})
    file.seek(0)
    return file.getvalue(), torch.export.load(file).module()


def _to_safetensors(model: CalibratedNetwork, _example: Tensor, restored: Restored) -> tuple[bytes, Classify]:
    try:
        from safetensors.torch import load, save
    except ImportError as error:
        raise UsageError(f"safetensors are not installed: {install_hint('export')}") from error
    tensors = {**model.network.state_dict(), "temperature": model.temperature}
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, _metadata(restored))
    weights = load(content)
    loaded = deepcopy(model)
    loaded.temperature.copy_(weights.pop("temperature"))
    loaded.network.load_state_dict(weights)
    return content, loaded


def _to_html(model: CalibratedNetwork, example: Tensor, restored: Restored) -> tuple[bytes, Classify | None]:
    restored.require_same_images()
    prepare, _ = find_preprocessing(restored.checkpoint)
    digits, checkpoint = prepare is as_mnist, restored.checkpoint
    about = f"mnist-lit {__version__}, trained on {Path(checkpoint.settings['data']['dataset']).resolve().name}"
    page = describe_page(model, example, checkpoint.classes, about, digits=digits)
    return write_page(page).encode(), node_classifier(page)


def describe_page(
    model: CalibratedNetwork, example: Tensor, classes: Sequence[str], about: str, *, digits: bool
) -> dict[str, Any]:
    """Return what `write_page` needs.

    Args:
        model: in evaluation mode.
        example: two images, uint8 (2, C, H, W).
        classes: their names.
        about: a line at the end of the page.
        digits: whether drawings and pictures are prepared as MNIST's digits, otherwise as photographs.

    Raises:
        ValueError: if the page cannot compute the network.
    """
    program = _trace(model, example)
    calibration = model.uncalibrated or "these probabilities are calibrated on validation images"
    return {
        "kind": "digits" if digits else "photographs",
        "classes": list(classes),
        "shape": list(example.shape[1:]),
        "unsure": MIN_CONFIDENCE,
        "calibration": f"{calibration}.".capitalize(),
        "about": f"{about}: {count_parameters(model.network):,} parameters",
        **describe_network(program),
        "novelty": _describe_novelty(example) if digits else None,
    }


def _describe_novelty(example: Tensor) -> dict[str, Any]:
    network = nn.Sequential(NoveltyNetwork.load(), nn.Softmax(dim=1)).eval()
    return {"shape": list(example.shape[1:]), "least": MAX_NOVELTY, **describe_network(_trace(network, example))}


FORMATS = {".onnx": _to_onnx, ".pt2": _to_pt2, ".html": _to_html, ".safetensors": _to_safetensors}
