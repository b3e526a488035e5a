"""The memory of this machine."""

import os

import pytest
from conftest import posix

from mnist_lit.system.memory import total_memory


def test_total_memory_is_plausible() -> None:
    assert 1e9 < (total_memory() or 0) < 1e14


@posix
def test_total_memory_is_none_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", refuse)
    assert total_memory() is None
