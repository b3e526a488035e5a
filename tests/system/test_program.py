"""Ranks of processes, and hints that name what to install."""

import pytest

from mnist_lit.system import program
from mnist_lit.system.program import install_hint, is_child_process, process_rank


@pytest.mark.parametrize(
    ("environment", "rank", "is_child"),
    [
        ({}, 0, False),
        ({"LOCAL_RANK": "1", "MASTER_PORT": "12345"}, 1, True),
        ({"LOCAL_RANK": "1"}, 1, False),  # which somebody has left in the environment
        ({"RANK": "2", "LOCAL_RANK": "0"}, 2, False),
        ({"NODE_RANK": "1"}, 1, False),  # of the second machine, on which Lightning starts the other processes
        ({"SLURM_PROCID": "3"}, 3, False),
    ],
)
def test_ranks_are_those_of_the_launcher(
    environment: dict[str, str], rank: int, *, is_child: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (process_rank(), is_child_process()) == (rank, is_child)


def test_extras_are_installed_as_the_package_was(monkeypatch: pytest.MonkeyPatch) -> None:
    assert install_hint("export") == "pip install -e '.[export]'"
    monkeypatch.setattr(program, "CHECKOUT", None)
    assert install_hint("export") == "pip install 'mnist-lit[export]'"
