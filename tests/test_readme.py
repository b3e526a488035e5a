"""The changes that the README shows: its code blocks, written into a copy of the project, work with the commands."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TRAIN, link_data
from PIL import Image

from mnist_lit.datasets.catalog import MNIST

README = (TRAIN.parent / "README.md").read_text(encoding="utf-8")
FEW = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=300", "--trainer.accelerator=cpu"]

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path, data_dir: Path) -> Callable[..., str]:
    """A function that runs a command in a copy of the project, `tmp_path`, and returns its output."""
    for name in ("mnist_lit", "configs"):
        shutil.copytree(TRAIN.parent / name, tmp_path / name)
    shutil.copy(TRAIN, tmp_path)
    link_data(data_dir, tmp_path)

    def run(*argv: str) -> str:
        command = [sys.executable, "train.py", *argv]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


def block_after(title: str) -> str:
    """Return the first block of code after a title."""
    return README.partition(f"**{title}")[2].partition("```python\n")[2].partition("```")[0]


def edit(path: Path, *replacements: tuple[str, str]) -> None:
    """Replace parts of a file that are in it once."""
    text = path.read_text(encoding="utf-8")
    for old, new in replacements:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def test_another_network_works_with_every_command(tmp_path: Path, data_dir: Path, run: Callable[..., str]) -> None:
    model = tmp_path / "mnist_lit" / "model.py"
    before, _, _ = model.read_text(encoding="utf-8").partition("class CNN(")
    model.write_text(before + block_after("Another network"), encoding="utf-8")
    pixels, _ = MNIST.read(data_dir, train=False)
    Image.fromarray(255 - pixels[0, 0].numpy()).resize((280, 280)).save(tmp_path / "seven.png")

    assert "seven.png: 7" in run("predict", "--images", "seven.png"), "by the trained network of the package"
    assert "test accuracy 9" in run("fit", *FEW, "--model.width=16")
    assert "test accuracy 9" in run("test")
    assert "validation accuracy 9" in run("validate")
    assert "seven.png: 7" in run("predict", "--images", "seven.png")
    assert "classified alike" in run("export", "--output=x.pt2")
    assert "x.html" in run("export", "--output=x.html")


def test_a_metric_an_optimizer_and_a_callback(tmp_path: Path, run: Callable[..., str]) -> None:
    created, *logged = block_after("A metric").splitlines()
    assert len(logged) == 2
    steps = {}
    for stage in ("val", "test"):
        lines = [re.sub(" *#.*", "", line).replace("val", stage) for line in logged]
        steps[stage] = "".join(f"        {line}\n" for line in lines)
    edit(
        tmp_path / "mnist_lit" / "classifier.py",
        ("import MulticlassAccuracy", "import MulticlassAccuracy, MulticlassF1Score"),
        ("for _ in range(3)\n        )\n", f"for _ in range(3)\n        )\n        {created}\n"),
        *(
            (f'self._step(batch, "{stage}")\n', f'self._step(batch, "{stage}")\n{lines}')
            for stage, lines in steps.items()
        ),
        ('Literal["adam", "sgd", "muon"]', 'Literal["adam", "sgd", "muon", "radam"]'),
        (other := '        else:\n            raise ValueError(f"optimizer', f"{block_after('An optimizer')}{other}"),
    )
    callbacks = tmp_path / "mnist_lit" / "training" / "callbacks.py"
    callbacks.write_text(callbacks.read_text(encoding="utf-8") + "\n\n" + block_after("A callback"), encoding="utf-8")
    own = "--trainer.callbacks+=mnist_lit.training.callbacks.GradientNorm"
    assert own.removeprefix("--") in README

    out = run("fit", *FEW, "--model.optimizer=radam", "--model.learning_rate=0.003", own)
    assert re.search(r"epoch +1/1 .* val/f1 0\.[89]", out)
    assert re.search(r"test/f1 0\.[89]", out)
    results = json.loads((tmp_path / "runs/baseline/version_0/results.json").read_text(encoding="utf-8"))
    assert results["test"]["f1"] > 0.8
    assert re.search(r"test/f1 0\.[89]", run("test"))
    assert "train/gradient_norm" in out
