"""Exported models classify as their checkpoint does, batches of any size, and contain metadata."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import RUN, SHORT, Command
from safetensors import safe_open

from mnist_lit import DigitClassifier, __version__
from mnist_lit.calibration import CalibratedNetwork
from mnist_lit.commands import export as module
from mnist_lit.commands import has_room
from mnist_lit.datasets.catalog import MNIST

BATCH_SIZES = (1, 2, 3, 100, 10_000)


@pytest.fixture
def expected(trained: Command, data_dir: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """All test images, and their probabilities by the checkpoint."""
    assert trained is not None  # copies the run into the current folder
    pixels, _ = MNIST.read(data_dir, train=False)
    classifier = DigitClassifier.load_from_checkpoint(RUN.checkpoints / "best.ckpt", weights_only=True).eval()
    with torch.inference_mode():
        return pixels, (classifier(pixels) / classifier.temperature).softmax(dim=1)


def check_metadata(metadata: dict[str, str]) -> None:
    assert json.loads(metadata["classes"]) == [str(digit) for digit in range(10)]
    assert metadata["mnist_lit"] == __version__
    assert metadata["run"] == RUN.folder.as_posix()
    assert metadata["checkpoint"] == "best.ckpt"
    assert metadata["input"].startswith("pixels: uint8 (N, 1, 28, 28)")
    assert metadata["output"] == "probabilities: float32 (N, 10)"
    assert json.loads(metadata["settings"])["model"]["channels"] == [4, 8]


def test_onnx_has_the_same_output(trained: Command, expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    out = trained.succeed("export")
    path = RUN.folder / "model.onnx"
    assert "10,000 test images classified alike" in out
    assert str(path) in out
    session = onnxruntime.InferenceSession(path)
    assert [(value.name, value.type, value.shape[1:]) for value in (*session.get_inputs(), *session.get_outputs())] == [
        ("pixels", "tensor(uint8)", [1, 28, 28]),
        ("probabilities", "tensor(float)", [10]),
    ]
    check_metadata(session.get_modelmeta().custom_metadata_map)
    pixels, probabilities = expected
    for size in BATCH_SIZES:
        (computed,) = session.run(["probabilities"], {"pixels": pixels[:size].numpy()})
        assert abs(computed - probabilities[:size].numpy()).max() < 1e-4
        assert (computed.argmax(axis=1) == probabilities[:size].numpy().argmax(axis=1)).all()
        assert computed.dtype == np.float32


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_a_network_with_gelu_that_averages_over_views_has_the_same_output(command: Command, name: str) -> None:
    flags = ["--model.activation=gelu", "--model.views=6", "--trainer.max_epochs=1"]
    assert command("fit", *SHORT, *flags)[0] == 0
    code, out, _ = command("export", f"--output={name}")
    assert (code, "10,000 test images classified alike" in out) == (0, True)


def test_torch_program_has_the_same_output(trained: Command, expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    out = trained.succeed("export", "--output=mine/model.pt2")
    assert "10,000 test images classified alike" in out
    extra = {"metadata.json": ""}
    program = torch.export.load("mine/model.pt2", extra_files=extra).module()
    check_metadata(json.loads(extra["metadata.json"]))
    pixels, probabilities = expected
    for size in BATCH_SIZES:
        torch.testing.assert_close(program(pixels[:size]), probabilities[:size], rtol=0, atol=1e-4)


def test_model_that_classifies_otherwise_is_not_written(trained: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(classifier: CalibratedNetwork, *_: Any) -> Any:
        return b"", lambda pixels: classifier(pixels) + 2e-4

    monkeypatch.setitem(module.FORMATS, ".onnx", module.FORMATS[".onnx"]._replace(write=export))
    code, _, err = trained("export", "--output=x.onnx")
    assert (code, err) == (
        1,
        "error: not written: the exported model classifies test images differently (by 2.0e-04)\n",
    )
    assert not Path("x.onnx").exists()


def test_other_format_is_a_usage_error(trained: Command) -> None:
    code, _, err = trained("export", "--output=x.h5")
    suffixes = ".onnx, .pt2, .safetensors or .html" if has_room("reader") else ".onnx, .pt2 or .safetensors"
    assert (code, err) == (2, f"error: --output: x.h5 must end in {suffixes}\n")


def test_error_without_onnxruntime_says_what_to_install(trained: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    err = trained.refuse("export")
    assert err == "error: ONNX needs onnxruntime: pip install -e '.[export]', or give --output FILE.pt2\n"


def test_safetensors_have_the_weights_and_the_settings(
    trained: Command, expected: tuple[torch.Tensor, torch.Tensor]
) -> None:
    out = trained.succeed("export", "--output=model.safetensors")
    assert "10,000 test images classified alike, probabilities differ by " in out
    with safe_open("model.safetensors", "pt") as file:
        check_metadata(file.metadata())
    variables: dict[str, Any] = {}
    exec(code_of("model.safetensors.md"), variables)  # the example of the card
    assert variables["probabilities"].shape == (3, 10)
    pixels, probabilities = expected
    found = (variables["network"](pixels[:100]) / variables["temperature"]).softmax(dim=1)
    torch.testing.assert_close(found, probabilities[:100], rtol=0, atol=1e-6)


def code_of(card: str) -> str:
    return Path(card).read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
