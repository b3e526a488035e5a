"""A checkpoint for other programs: ONNX or a torch.export program, plain pixels in, probabilities out."""

import json
import logging
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any
from warnings import catch_warnings

import torch
from torch import Tensor, nn
from torch.export import Dim

from mnist_lit import __version__
from mnist_lit.calibration import calibrated
from mnist_lit.classifier import DigitClassifier
from mnist_lit.evaluate import Restored, restore
from mnist_lit.files import write_atomically
from mnist_lit.model import SIDE
from mnist_lit.usage import UsageError

__all__ = ["Reader", "export"]

MOST = 10_000  # images at once
TOLERANCE = 1e-4  # of a probability
SHAPES = {"pixels": {0: Dim("N", min=1, max=MOST)}}
EXAMPLE = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8)

Read = Callable[[Tensor], Tensor]


class Reader(nn.Module):
    """The network as it is used elsewhere.

    Args:
        classifier: whose network and temperature it has.
    """

    temperature: Tensor

    def __init__(self, classifier: DigitClassifier) -> None:
        super().__init__()
        self.network = classifier.network
        self.register_buffer("temperature", classifier.temperature)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels 0-255, white on black, (N, 1, 28, 28), to probabilities (N, 10)."""
        return calibrated(self.network(pixels), self.temperature)


def export(argv: Sequence[str]) -> None:
    """Write a checkpoint as `.onnx` or `.pt2`, if it reads all test images as the checkpoint does.

    Raises:
        UsageError: if the file's name ends otherwise, or ONNX is not installed.
        ValueError: if the exported model reads an image otherwise.
    """
    restored = restore("export", argv)
    target = restored.target("model.onnx")
    if target.suffix not in FORMATS:
        raise UsageError(f"--output: {target} must end in {' or '.join(FORMATS)}")
    reader = Reader(restored.classifier.cpu())
    with catch_warnings(action="ignore"):  # the exporters', about what they are made of
        content, read = FORMATS[target.suffix](reader, _metadata(restored))
    restored.data.prepare_data()
    restored.data.setup("predict")
    pixels = restored.data.test_set.pixels
    difference = _difference(read, reader, pixels)
    write_atomically(target, content)
    print(
        f"{len(pixels):,} test images read alike, probabilities differ by {difference:.1e} at most: {target}, "
        f"{len(content) / 1e3:,.0f} kB"
    )


def _difference(read: Read, reader: Reader, pixels: Tensor) -> float:
    """Return the largest difference of a probability between the exported model and the checkpoint.

    Raises:
        ValueError: if it is too large, or an image is read as something else.
    """
    largest = 0.0
    with torch.inference_mode():
        for some in (pixels[:1], *torch.split(pixels, 1_000)):
            found, expected = read(some), reader(some)
            largest = max(largest, float((found - expected).abs().max()))
            if not largest < TOLERANCE or (found.argmax(dim=1) != expected.argmax(dim=1)).any():
                raise ValueError(f"the exported model reads test images otherwise (by {largest:.1e}): not written")
    return largest


def _metadata(restored: Restored) -> dict[str, str]:
    """Return what a user of the file may ask: what goes in and comes out, and where it is from."""
    settings = {"model": dict(restored.classifier.hparams), "data": dict(restored.data.hparams)}
    return {
        "input": f"pixels: uint8 (N, 1, {SIDE}, {SIDE}), 0-255, white on black; N from 1 to {MOST}",
        "output": "probabilities: float32 (N, 10)",
        "classes": json.dumps(restored.data.dataset.classes),
        "dataset": restored.data.dataset.name,
        "mnist_lit": __version__,
        "run": restored.run.folder.as_posix() if restored.run else "",
        "checkpoint": restored.path.name,
        "settings": json.dumps(settings),
    }


def _to_onnx(reader: Reader, metadata: dict[str, str]) -> tuple[bytes, Read]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx is built on it
        from onnx.helper import set_model_props
    except ImportError as error:
        raise UsageError(f"ONNX needs {error.name}: pip install -e '.[export]', or give --output FILE.pt2") from error
    names: dict[str, Any] = {"input_names": ["pixels"], "output_names": ["probabilities"]}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # 2.9 warns of operators of torchvision's
    exported = torch.export.export(reader, (EXAMPLE,), dynamic_shapes=SHAPES)  # torch.onnx in 2.9 does it otherwise
    program = torch.onnx.export(exported, dynamo=True, verbose=False, **names)
    assert program is not None  # noqa: S101  # it is, with dynamo
    model = program.model_proto
    set_model_props(model, metadata)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def read(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["probabilities"], {"pixels": pixels.numpy()})[0])

    return content, read


def _to_pt2(reader: Reader, metadata: dict[str, str]) -> tuple[bytes, Read]:
    program = torch.export.export(reader, (EXAMPLE,), dynamic_shapes=SHAPES)
    file = BytesIO()
    torch.export.save(program, file, extra_files={"metadata.json": json.dumps(metadata)})
    file.seek(0)
    return file.getvalue(), torch.export.load(file).module()


FORMATS = {".onnx": _to_onnx, ".pt2": _to_pt2}
