"""The notebook is that of its document, and its code runs."""

import re
from pathlib import Path

import nbformat
import pytest
from conftest import link_data
from helpers.notebook import NOTEBOOK, execute, read_document


def test_notebook_has_the_text_and_code_of_the_document() -> None:
    """If this fails, run `python tests/helpers/notebook.py`."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells  # type: ignore[no-untyped-call]
    assert [(cell.cell_type, cell.source) for cell in cells] == [
        (cell.cell_type, cell.source) for cell in read_document().cells
    ]
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("test accuracy" in output.get("text", "") for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter
def test_notebook_runs(tmp_path: Path, data_dir: Path) -> None:
    link_data(data_dir, tmp_path)
    executed = execute(read_document(), tmp_path)
    text = "".join(output.get("text", "") for cell in executed.cells for output in cell.get("outputs", []))
    assert "test accuracy" in text
    scaled, raw = (float(accuracy) for accuracy in re.findall(r"pixels \S+ (\S+)%", text))
    assert raw < scaled
    assert scaled > 70
