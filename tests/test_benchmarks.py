"""The tables in the documentation have the results of the benchmarks, and one command measures all of them again."""

from importlib import import_module
from types import ModuleType

import pytest
from conftest import TRAIN

BENCHMARKS = TRAIN.parent / "tests" / "benchmarks"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("tables")


def test_tables_are_up_to_date(tables: ModuleType) -> None:
    """If this fails, run `python tests/benchmarks/tables.py`."""
    for path in tables.FILES:
        text = path.read_text(encoding="utf-8")
        assert "<!-- end -->" in text
        assert tables.filled(text) == text, path


@pytest.mark.usefixtures("tables")
def test_figures_runs_every_benchmark() -> None:
    figures = import_module("figures")
    scripts = {command[0] for command in (figures.BENCHMARKS | figures.OF_IMAGES).values()}
    assert scripts == {path.name for path in BENCHMARKS.glob("*.py")} - {"figures.py", "measure.py", "tables.py"}
