"""Export a checkpoint to ONNX, torch.export or safetensors: pixels in, calibrated probabilities out."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from io import BytesIO
from typing import Any, NamedTuple
from warnings import catch_warnings

import torch
from torch import Tensor
from torch.export import Dim
from tqdm import tqdm

from mnist_lit import __version__
from mnist_lit.calibration import CalibratedNetwork
from mnist_lit.commands import has_room
from mnist_lit.commands.evaluate import Restored, restore
from mnist_lit.datasets.catalog import public_name
from mnist_lit.runs.card import describe_model
from mnist_lit.system.errors import UsageError
from mnist_lit.system.files import write_atomically
from mnist_lit.system.output import say
from mnist_lit.system.program import install_hint

__all__ = ["export"]

MAX_BATCH = 10_000  # images
BATCH_SIZE = 1_000  # images of the comparison
TOLERANCE = 1e-4  # largest difference of a probability
DYNAMIC_SHAPES = ({0: Dim("N", min=1, max=MAX_BATCH)},)  # of the pixels

Classify = Callable[[Tensor], Tensor]
Metadata = Mapping[str, str]


class Format(NamedTuple):
    """A file format."""

    write: Callable[[CalibratedNetwork, Tensor, Metadata], tuple[bytes, Classify | None]]
    """Returns the file's content and a function that classifies with it, given a model, two images and the metadata."""
    library: str
    """The library that opens such files, as Hugging Face's Hub names it."""
    use: str
    """How to use such a file, in Markdown."""
    compared: int | None = None
    """How many test images it must classify as the checkpoint does; None for all of them."""


def export(argv: Sequence[str]) -> None:
    """Write a checkpoint in another format, which must classify test images as the checkpoint does, and its card.

    A page is compared on a part of them, and only if Node.js is installed.

    Raises:
        UsageError: if the file has another suffix, a package is not installed, or a page cannot prepare such images.
        ValueError: if the exported model classifies an image differently.
    """
    restored = restore("export", argv)
    target = restored.output("model.onnx")
    formats = dict(FORMATS)
    if has_room("reader"):
        from mnist_lit.reader.page import html

        formats[".html"] = Format(html.to_html, "mnist-lit", html.USE, compared=html.COMPARED)
    if not (form := formats.get(target.suffix)):
        *suffixes, last = formats
        raise UsageError(f"--output: {target} must end in {', '.join(suffixes)} or {last}")
    data, model, metadata = restored.data, restored.model, _metadata(restored)
    if target.suffix == ".html":
        restored.require_same_images()
    example = torch.zeros(2, *data.dataset.shape, dtype=torch.uint8)
    with catch_warnings(action="ignore"):  # the exporters', about their own code
        content, classify = form.write(model, example, metadata)
    data.prepare_data()
    data.setup("predict")
    pixels, labels = data.test_set.tensors
    probabilities = model.classify(pixels, BATCH_SIZE)  # (N, K)
    with torch.inference_mode():
        compared = _compare(classify, pixels[: form.compared], probabilities[: form.compared])
    card = describe_model(
        *(target, restored.checkpoint, data.dataset, model, metadata, probabilities, labels),
        library=form.library,
        use=form.use,
    )
    write_atomically(target, content)
    write_atomically(described := target.with_name(f"{target.name}.md"), card.encode())
    say(f"{compared}: {target}, {len(content) / 1e3:,.0f} kB, and its model card {described.name}")


def _compare(classify: Classify | None, pixels: Tensor, expected: Tensor) -> str:
    """Return how the exported file classifies test images (N, C, H, W), compared with the checkpoint's probabilities.

    Raises:
        ValueError: if a probability differs too much, or an image gets another class.
    """
    if not classify:
        return "without Node.js, not compared with the checkpoint"
    largest = 0.0
    parts = (torch.split(pixels, BATCH_SIZE), torch.split(expected, BATCH_SIZE))
    batches = [(pixels[:1], expected[:1]), *zip(*parts, strict=True)]
    for batch, probabilities in tqdm(batches, "comparing", leave=False, disable=None):
        found = classify(batch)
        largest = max(largest, float((found - probabilities).abs().max()))
        if not largest < TOLERANCE or (found.argmax(dim=1) != probabilities.argmax(dim=1)).any():
            raise ValueError(f"not written: the exported model classifies test images differently (by {largest:.1e})")
    return f"{len(pixels):,} test images classified alike, probabilities differ by {largest:.1e} at most"


def _metadata(restored: Restored) -> dict[str, str]:
    """Return the input, output and origin of the exported model."""
    dataset, checkpoint = restored.data.dataset, restored.checkpoint
    name, data = public_name(dataset.name), dict(restored.data.hparams)
    settings = {"model": dict(restored.classifier.hparams), "data": data | {"dataset": name}}
    shape = ", ".join(map(str, dataset.shape))
    look = {"digits": ", white on black, centred as MNIST's are", "drawings": ", white on black", "photographs": ""}
    return {
        "input": f"pixels: uint8 (N, {shape}), 0-255{look[dataset.kind]}; N from 1 to {MAX_BATCH}",
        "output": f"probabilities: float32 (N, {len(dataset.classes)})",
        "classes": json.dumps(dataset.classes),
        "dataset": name,
        "kind": dataset.kind,
        "mnist_lit": __version__,
        "run": checkpoint.run.folder.as_posix() if checkpoint.run else "",
        "checkpoint": checkpoint.path.name,
        "settings": json.dumps(settings),
    }


def _to_onnx(model: CalibratedNetwork, example: Tensor, metadata: Metadata) -> tuple[bytes, Classify]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it
        from onnx.helper import set_model_props
    except ImportError as error:
        raise UsageError(f"ONNX needs {error.name}: {install_hint('export')}, or give --output FILE.pt2") from error
    names: dict[str, Any] = {"input_names": ["pixels"], "output_names": ["probabilities"]}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # 2.9 warns of operators of torchvision's
    exported = torch.export.export(model, (example,), dynamic_shapes=DYNAMIC_SHAPES)  # torch.onnx in 2.9 does otherwise
    program = torch.onnx.export(exported, dynamo=True, verbose=False, **names)
    assert program is not None  # noqa: S101  # it is, with dynamo
    proto = program.model_proto
    set_model_props(proto, dict(metadata))
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def classify(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["probabilities"], {"pixels": pixels.numpy()})[0])

    return content, classify


def _to_pt2(model: CalibratedNetwork, example: Tensor, metadata: Metadata) -> tuple[bytes, Classify]:
    program = torch.export.export(model, (example,), dynamic_shapes=DYNAMIC_SHAPES)
    file = BytesIO()
    torch.export.save(program, file, extra_files={"metadata.json": json.dumps(dict(metadata))})
    file.seek(0)
    return file.getvalue(), torch.export.load(file).module()


def _to_safetensors(model: CalibratedNetwork, _example: Tensor, metadata: Metadata) -> tuple[bytes, Classify]:
    try:
        from safetensors.torch import load, save
    except ImportError as error:
        raise UsageError(f"safetensors are not installed: {install_hint('export')}") from error
    tensors = {**model.network.state_dict(), "temperature": model.temperature}
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, dict(metadata))
    weights = load(content)
    loaded = deepcopy(model)
    loaded.temperature.copy_(weights.pop("temperature"))
    loaded.network.load_state_dict(weights)
    return content, loaded


IO = "- input: {input}\n- output: {output}\n"
FORMATS = {
    ".onnx": Format(
        _to_onnx,
        "onnx",
        IO
        + """
```python
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("{name}")
pixels = np.zeros({shape}, dtype=np.uint8)
probabilities = session.run(["probabilities"], {{"pixels": pixels}})[0]  # (3, {classes})
```""",
    ),
    ".pt2": Format(
        _to_pt2,
        "pytorch",
        IO
        + """
```python
import torch

program = torch.export.load("{name}").module()
pixels = torch.zeros({shape}, dtype=torch.uint8)
probabilities = program(pixels)  # (3, {classes})
```""",
    ),
    ".safetensors": Format(
        _to_safetensors,
        "pytorch",
        IO
        + """
```python
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
```""",
    ),
}
