"""The wheel alone is enough: built, installed in a new environment, and used in an empty folder."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TRAIN
from PIL import Image

from mnist_lit import __version__
from mnist_lit.commands import has_room
from mnist_lit.datasets.catalog import MNIST

pytestmark = pytest.mark.slow


def run(*argv: str | Path, folder: Path, code: int = 0) -> str:
    """Run a program, expect its exit code, and return its output."""
    done = subprocess.run([*map(str, argv)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_wheel_reads_trains_tests_and_finds_its_configs(tmp_path: Path, data_dir: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, TRAIN.parent, folder=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    scripts = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    python, program = scripts / "python", scripts / "mnist-lit"
    run(python, "-m", "pip", "install", wheel, folder=tmp_path)
    (folder := tmp_path / "empty").mkdir()

    assert run(program, "--version", folder=folder) == f"mnist-lit {__version__}\n"
    if has_room("reader"):  # the wheel has a trained network
        pixels, _ = MNIST.read(data_dir, train=False)
        Image.fromarray(255 - pixels[0, 0].numpy()).resize((140, 140)).save(folder / "seven.png")
        assert "seven.png: 7" in run(program, "predict", "--images", "seven.png", folder=folder)
    out = run(program, "fit", "--config", "fast", folder=folder)
    assert "       mnist-lit predict --images PHOTO.jpg\n" in out
    assert "test accuracy 9" in out
    assert "test accuracy 9" in run(python, "-m", "mnist_lit", "test", folder=folder)
    assert "usage: python -m mnist_lit COMMAND" in run(python, "-m", "mnist_lit", folder=folder)
    assert "pip install 'mnist-lit[export]'" in run(program, "export", folder=folder, code=2)
    assert "pip install 'mnist-lit[search]'" in run(program, "search", "--config", "search", folder=folder, code=2)
    code = "import mnist_lit, pathlib; print((pathlib.Path(mnist_lit.__file__).parent / 'py.typed').is_file())"
    assert run(python, "-c", code, folder=folder) == "True\n"
