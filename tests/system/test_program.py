"""Hints name the command that was used, and configs are found by name."""

import subprocess
from pathlib import Path

import pytest
from conftest import TRAIN

from mnist_lit import __version__
from mnist_lit.system import program
from mnist_lit.system.program import START, find_config, install_hint


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_program_starts_again_in_another_folder() -> None:
    started = subprocess.run([*START, "--version"], capture_output=True, text=True, check=True)
    assert started.stdout == f"mnist-lit {__version__}\n"


@pytest.mark.parametrize("name", ["fast", "fast.yaml"])
def test_a_name_is_a_config_of_the_package(name: str) -> None:
    assert find_config(name) == str(TRAIN.parent / "configs" / "fast.yaml")


@pytest.mark.parametrize("name", ["fast", "fast.yaml"])
def test_a_file_of_the_name_wins(name: str) -> None:
    Path(name).touch()
    assert find_config(name) == name


def test_a_folder_of_the_name_does_not() -> None:
    Path("fast").mkdir()
    assert find_config("fast") == str(TRAIN.parent / "configs" / "fast.yaml")


@pytest.mark.parametrize("given", ["mine", "./fast", "elsewhere/fast.yaml", "runs/fast/version_0/config.yaml", ""])
def test_paths_and_other_names_stay_as_they_are(given: str) -> None:
    assert find_config(given) == given


def test_extras_are_installed_as_the_package_was(monkeypatch: pytest.MonkeyPatch) -> None:
    assert install_hint("export") == "pip install -e '.[export]'"
    monkeypatch.setattr(program, "CHECKOUT", None)
    assert install_hint("export") == "pip install 'mnist-lit[export]'"
