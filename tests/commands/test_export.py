"""An exported model reads as its checkpoint does, any number of images, and says what it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import MNIST, RUN, Command, uninstall

from mnist_lit import DigitClassifier, __version__
from mnist_lit.commands import export as module

NUMBERS = (1, 2, 3, 100, 10_000)


@pytest.fixture
def expected(trained: Command, data_dir: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """All test images, and the probabilities of the checkpoint."""
    assert trained is not None
    pixels, _ = MNIST.read(data_dir, train=False)
    classifier = DigitClassifier.load_from_checkpoint(RUN.checkpoints / "best.ckpt").eval()
    with torch.inference_mode():
        return pixels, (classifier(pixels) / classifier.temperature).softmax(dim=1)


def check(metadata: dict[str, str]) -> None:
    assert json.loads(metadata["classes"]) == [str(digit) for digit in range(10)]
    assert metadata["mnist_lit"] == __version__
    assert metadata["run"] == RUN.folder.as_posix()
    assert metadata["checkpoint"] == "best.ckpt"
    assert metadata["input"].startswith("pixels: uint8 (N, 1, 28, 28)")
    assert metadata["output"] == "probabilities: float32 (N, 10)"
    assert json.loads(metadata["settings"])["model"]["channels"] == [4, 8]


def test_onnx_reads_any_number_of_images_as_the_checkpoint_does(
    trained: Command, expected: tuple[torch.Tensor, torch.Tensor]
) -> None:
    code, out, err = trained("export")
    assert (code, err) == (0, "")
    path = RUN.folder / "model.onnx"
    assert "10,000 test images classified alike" in out
    assert str(path) in out
    session = onnxruntime.InferenceSession(path)
    assert [(put.name, put.type, put.shape[1:]) for put in (*session.get_inputs(), *session.get_outputs())] == [
        ("pixels", "tensor(uint8)", [1, 28, 28]),
        ("probabilities", "tensor(float)", [10]),
    ]
    check(session.get_modelmeta().custom_metadata_map)
    pixels, probabilities = expected
    for number in NUMBERS:
        (found,) = session.run(["probabilities"], {"pixels": pixels[:number].numpy()})
        assert abs(found - probabilities[:number].numpy()).max() < 1e-4
        assert (found.argmax(axis=1) == probabilities[:number].numpy().argmax(axis=1)).all()
        assert found.dtype == np.float32


def test_a_torch_program_does_too(trained: Command, expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    code, out, err = trained("export", "--output=mine/model.pt2")
    assert (code, err) == (0, "")
    assert "10,000 test images classified alike" in out
    extra = {"metadata.json": ""}
    program = torch.export.load("mine/model.pt2", extra_files=extra).module()
    check(json.loads(extra["metadata.json"]))
    pixels, probabilities = expected
    for number in NUMBERS:
        torch.testing.assert_close(program(pixels[:number]), probabilities[:number], rtol=0, atol=1e-4)


def test_a_model_that_reads_otherwise_is_not_written(trained: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(reader: module.ExportedClassifier, _example: torch.Tensor, metadata: dict[str, str]) -> Any:
        assert metadata
        return b"", lambda pixels: reader(pixels) + 2e-4

    monkeypatch.setitem(module.FORMATS, ".onnx", spoilt)
    code, _, err = trained("export", "--output=x.onnx")
    assert (code, err) == (1, "error: the exported model classifies test images otherwise (by 2.0e-04): not written\n")
    assert not Path("x.onnx").exists()


def test_other_formats_are_wrong_usage(trained: Command) -> None:
    code, _, err = trained("export", "--output=x.h5")
    assert (code, err) == (2, "error: --output: x.h5 must end in .onnx or .pt2\n")


def test_without_the_extra_one_line_says_what_to_install(trained: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall("onnxruntime", monkeypatch)
    code, _, err = trained("export")
    assert code == 2
    assert err == "error: ONNX needs onnxruntime: pip install -e '.[export]', or give --output FILE.pt2\n"
