"""Ranks of processes, names of configs, and hints that name what to install."""

from pathlib import Path

import pytest
from conftest import TRAIN

from mnist_lit.system import program
from mnist_lit.system.program import find_config, install_hint, is_child_process, process_rank


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("environment", "rank", "is_child"),
    [
        ({}, 0, False),
        ({"LOCAL_RANK": "1"}, 1, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, 2, False),
        ({"SLURM_PROCID": "3"}, 3, False),
    ],
)
def test_ranks_are_those_of_the_launcher(
    environment: dict[str, str], rank: int, *, is_child: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (process_rank(), is_child_process()) == (rank, is_child)


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
