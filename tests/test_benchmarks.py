"""What the benchmarks have measured is what people read."""

from importlib import import_module

import pytest
from conftest import TRAIN


def test_the_tables_are_made_from_what_the_benchmarks_have_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """If not, run `python tests/benchmarks/tables.py`."""
    monkeypatch.syspath_prepend(TRAIN.parent / "tests" / "benchmarks")
    tables = import_module("tables")
    for path in tables.FILES:
        text = path.read_text(encoding="utf-8")
        assert "<!-- end -->" in text
        assert tables.filled(text) == text, path
