"""Ranks of processes, names of configs, and hints that name what to install."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TRAIN

from mnist_lit.system import program
from mnist_lit.system.program import find_config, install_hint, is_child_process, process_rank

FAST = str(TRAIN.parent / "configs" / "fast.yaml")


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


@pytest.mark.parametrize(
    ("given", "made", "found"),
    [
        *((name, None, FAST) for name in ("fast", "fast.yaml")),
        *((name, Path.touch, name) for name in ("fast", "fast.yaml")),
        ("fast", Path.mkdir, FAST),
        *((path, None, path) for path in ("mine", "./fast", "else/fast.yaml", "runs/fast/version_0/config.yaml", "")),
    ],
)
def test_a_name_is_a_config_of_the_package_unless_there_is_a_file_of_that_name(
    given: str, made: Callable[[Path], None] | None, found: str
) -> None:
    if made:
        made(Path(given))
    assert find_config(given) == found


def test_extras_are_installed_as_the_package_was(monkeypatch: pytest.MonkeyPatch) -> None:
    assert install_hint("export") == "pip install -e '.[export]'"
    monkeypatch.setattr(program, "CHECKOUT", None)
    assert install_hint("export") == "pip install 'mnist-lit[export]'"
