"""The notebook of `docs/from-loop-to-lightning.md`: the same text and code, executed.

Run `python tests/helpers/notebook.py` to write `docs/from-loop-to-lightning.ipynb` again.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

__all__ = ["NOTEBOOK", "execute", "read_document"]

DOCS = Path(__file__).parent.parent.parent / "docs"
DOCUMENT, NOTEBOOK = DOCS / "from-loop-to-lightning.md", DOCS / "from-loop-to-lightning.ipynb"
INSTALL = """\
SOURCE = ".."  # where to install mnist_lit from: the clone that this notebook is in, or the address of a repository
try:
    import mnist_lit
except ImportError:
    %pip install --quiet $SOURCE"""


def read_document() -> Any:
    """Return the document as a notebook without output, with a first cell that installs the package."""
    notebook = jupytext.reads(DOCUMENT.read_text(encoding="utf-8"), fmt="md")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(INSTALL))  # type: ignore[no-untyped-call]
    for number, cell in enumerate(notebook.cells):
        cell.id = str(number)  # instead of random ones
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def execute(notebook: Any, folder: Path) -> Any:
    """Return the notebook with the output of its code, run in a folder."""
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    executed = client.execute()
    for cell in executed.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]  # hints, and paths
            for output in cell.outputs:
                output.get("data", {}).pop("image/jpeg", None)  # there is a PNG
    del executed.metadata["language_info"]
    return executed


def main() -> None:
    """Write the notebook."""
    with TemporaryDirectory() as folder:
        nbformat.write(execute(read_document(), Path(folder)), NOTEBOOK)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
