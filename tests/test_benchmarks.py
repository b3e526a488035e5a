"""The tables in the documentation have the results of the benchmarks."""

from importlib import import_module

import pytest
from conftest import TRAIN


def test_tables_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, run `python tests/benchmarks/tables.py`."""
    monkeypatch.syspath_prepend(TRAIN.parent / "tests" / "benchmarks")
    tables = import_module("tables")
    for path in tables.FILES:
        text = path.read_text(encoding="utf-8")
        assert "<!-- end -->" in text
        assert tables.filled(text) == text, path
