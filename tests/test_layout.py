"""The layout is what the README says: imports point one way, and the experiment is three short files."""

import ast
import re
from pathlib import Path

import pytest
from conftest import TRAIN

PACKAGE = TRAIN.parent / "mnist_lit"
README = (TRAIN.parent / "README.md").read_text(encoding="utf-8")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
LAYERS = [
    {"__main__"},
    {"cli"},
    {"studies"},
    {"commands"},
    {"training"},
    {"runs"},
    {"classifier", "data"},
    {"model", "calibration"},
    {"datasets"},
    {"photos", "page"},  # which know no other part
    {"system"},
]
"""A module imports from layers below its own, and within a folder."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, those within functions included."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    named = {node.module or "" for node in tree if isinstance(node, ast.ImportFrom)}
    return {module.removeprefix("mnist_lit.") for module in named if module.startswith("mnist_lit.")}


def layer(module: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if module.partition(".")[0] in parts)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_from_the_command_line_down(path: Path) -> None:
    name, imported = name_of(path), imports(path)
    folder = f"{name.partition('.')[0]}."
    upward = [module for module in imported if layer(module) <= layer(name) and not f"{module}.".startswith(folder)]
    assert upward == (["studies.seeds"] if name == "commands.fit" else []), "within a function, for `fit --seeds`"
    assert not (name.startswith("photos.") and any(module.startswith("datasets") for module in imported))


def test_no_modules_import_each_other_in_a_circle() -> None:
    below = {name_of(path): imports(path) for path in FILES}
    below["commands.fit"].remove("studies.seeds")
    while leaves := [module for module, imported in below.items() if not imported & below.keys()]:
        for module in leaves:
            del below[module]
    assert below == {}


def test_the_three_files_of_the_experiment_are_short() -> None:
    lengths = [
        len((PACKAGE / f"{name}.py").read_text(encoding="utf-8").splitlines())
        for name in ("model", "classifier", "data")
    ]
    assert sum(lengths) < 400


def test_no_private_name_of_a_library_is_used() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"SLF001|ignore\[method-assign\]|import _[a-z]", text), path


def test_the_network_needs_torch_only() -> None:
    assert imports(PACKAGE / "model.py") == set()
    named = re.findall(r"^(?:from|import) (\w+)", (PACKAGE / "model.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= {"collections", "torch"}


def test_readme_lists_every_file_of_the_package() -> None:
    files = README.partition("### The files")[2].split("```")[1]
    rows = re.findall(r"^ *(\S+/)? +(\w+\.py) +\S", files, re.MULTILINE)
    folder, listed = "", set()
    for new, name in rows:
        folder = new or folder
        listed.add((folder.strip("/"), name))
    expected = {(path.parent.name, path.name) for path in FILES if path.name != "__init__.py"}
    assert listed == expected | {("", "train.py")}


def test_readme_has_at_most_200_lines() -> None:
    assert len(README.splitlines()) <= 200
